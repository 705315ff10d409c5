"""
A view that is async in an event loop, and sync on a thread without one.

Django under WSGI makes a thread and an event loop for each request to an async view, which takes
longer than all else in a handshake. The application needs neither: it runs in a loop of its own.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from asgiref.sync import markcoroutinefunction

from dwebsocket.compat import unpatched
from dwebsocket.compat.asyncio import running_loop

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine


class EitherWay:
    """One view in two forms. Django asks before each request whether it is async."""

    def __init__(
        self, awaited: Callable[..., Coroutine[Any, Any, Any]], blocking: Callable[..., Any]
    ) -> None:
        """Has the name, and all attributes, of ``awaited``."""
        functools.update_wrapper(self, awaited)
        self._awaited = awaited
        self._blocking = blocking

    def __getattr__(self, name: str) -> Any:
        return mark(name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Answers a request: by a coroutine, or at once."""
        return (self._awaited if _is_async() else self._blocking)(*args, **kwargs)


def _is_async() -> bool:
    # The end of a wait for an event loop wakes no green thread.
    return unpatched.patched_by() is not None or running_loop() is not None


def mark(name: str) -> Any:
    """
    Returns the attribute ``name`` of coroutine functions.

    Raises:
        AttributeError: Coroutine functions have none of this name, or no event loop runs here.
    """
    if name in _MARKS and _is_async():
        return _MARKS[name]
    raise AttributeError(name)


def _example() -> None:
    """Gets the marks."""


# By these `iscoroutinefunction` knows objects that are no functions.
_MARKS = dict(vars(markcoroutinefunction(_example)))
