"""What middleware has set for a request, on the thread that runs its view."""

from __future__ import annotations

import contextvars
import functools
from typing import Any

from asgiref import local, sync

# asgiref keeps Django's language, time zone and script prefix in context variables, each tagged
# with the thread that set it (since 3.13), and has no public call that changes the tag.
_restore_context = getattr(sync, "_restore_context", None)
_Storage = getattr(local, "_Storage", None)


def settle_in() -> None:
    """Makes this thread the owner of all that the context holds in which it runs now."""
    if _restore_context is not None:
        _restore_context(contextvars.copy_context())


def slim_down() -> None:
    """Lets what is the same for all views be held once; to be called when settled in."""
    if _Storage is None:
        return
    for value in contextvars.copy_context().values():
        # asgiref never changes the dict, but puts another one in its place.
        if isinstance(value, _Storage) and all(type(v) is str for v in value.data.values()):
            value.data = _same(*value.data.items())


@functools.lru_cache(64)
def _same(*items: tuple[str, str]) -> dict[str, Any]:
    return dict(items)
