"""What middleware has set for a request, on the thread that runs its view."""

from __future__ import annotations

import contextvars

from asgiref import sync

# asgiref keeps Django's language, time zone and script prefix in context variables, each tagged
# with the thread that set it (since 3.13), and has no public call that changes the tag.
_restore_context = getattr(sync, "_restore_context", None)


def settle_in() -> None:
    """Makes this thread the owner of all that the context holds in which it runs now."""
    if _restore_context is not None:
        _restore_context(contextvars.copy_context())
