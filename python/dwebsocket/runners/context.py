"""What middleware has set for a request, on the thread that runs its view."""

from __future__ import annotations

import contextvars
import functools
from typing import Any

from asgiref import local

# asgiref keeps Django's language, time zone and script prefix in context variables, each tagged
# with the thread that set it (since 3.13), and has no public call that changes the tag.
_Storage = getattr(local, "_Storage", None)
_rehome = getattr(local, "_rehome", None)
_STRINGS = {str}


def settle_in() -> None:
    """
    Makes this thread the owner of all that the context holds in which it runs now.

    What is the same for all views is held once.
    """
    if _Storage is None or _rehome is None:
        return
    for variable, value in contextvars.copy_context().items():
        if type(value) is _Storage:
            stored = _rehome(value)
            # asgiref never changes the dict, but puts another one in its place.
            if {*map(type, stored.data.values())} <= _STRINGS:
                stored.data = _same(*stored.data.items())
            variable.set(stored)


@functools.lru_cache(64)
def _same(*items: tuple[str, str]) -> dict[str, Any]:
    return dict(items)
