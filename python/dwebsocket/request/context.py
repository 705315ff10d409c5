"""Context variables that middleware has set for a request, on the thread that runs its view."""

from __future__ import annotations

import contextvars
import functools
import threading
from typing import Any

from dwebsocket.compat.asgiref import Storage, rehome

#: An owner that is no thread.
NO_THREAD = 0


def enter_thread(owner: int | None = None) -> None:
    """
    Makes this thread the owner of all values in its current context.

    Args:
        owner: The number of another thread, or :data:`NO_THREAD`, for values that can be shared.

    asgiref keeps Django's language, time zone and script prefix in context variables, each tagged
    with the thread that set it (since 3.12), and has no public call that changes the tag. Values
    that are the same for all views are stored once.
    """
    if Storage is None or rehome is None:
        return
    thread = threading.get_ident() if owner is None else owner
    for variable, value in contextvars.copy_context().items():
        if type(value) is Storage:
            variable.set(_owned(thread, value))


def _owned(thread: int, storage: Any) -> Any:
    for value in storage.data.values():
        # Only strings are shared between views: other objects must not outlive their view.
        if type(value) is not str:
            return rehome(storage)
    return _stored(thread, *storage.data.items())


def is_shared(value: Any) -> bool:
    """Whether :func:`enter_thread` has stored a value once for all views with equal ones."""
    if Storage is None or type(value) is not Storage:
        return False
    return all(type(each) is str for each in value.data.values())


# Both may be shared: asgiref never changes such an object, it replaces it by another one.
@functools.lru_cache(4096)
def _stored(thread: int, *items: tuple[str, str]) -> Any:
    return Storage(thread, _same(*items))


@functools.lru_cache(64)
def _same(*items: tuple[str, str]) -> dict[str, Any]:
    return dict(items)
