"""Methods of rooms that a project writes, as calls of steps."""

from __future__ import annotations

import functools
from types import CoroutineType
from typing import TYPE_CHECKING, Any

from asgiref.sync import iscoroutinefunction, sync_to_async

from dwebsocket.api.waiting.steps import Call
from dwebsocket.exceptions import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable


class Hook(Call):
    """
    A call of a method of the project's, a function or a coroutine function.

    It raises UsageError for a function that gives a coroutine.
    """

    __slots__ = ()

    def __init__(self, method: Callable[..., Any], *args: Any) -> None:
        self.made = functools.partial(_make, method)
        self.awaited = functools.partial(_await, method)
        self.args = args
        self.kwargs = {}


def _make(method: Callable[..., Any], *args: Any) -> Any:
    return _checked(method(*args))


async def _await(method: Callable[..., Any], *args: Any) -> Any:
    call = method if iscoroutinefunction(method) else sync_to_async(method)
    return _checked(await call(*args))


def _checked(result: Any) -> Any:
    if isinstance(result, CoroutineType):
        # It would count as a yes.
        result.close()
        raise UsageError(
            "a method of a room gave a coroutine but is no coroutine function: mark it, or the "
            "decorator around it, with asgiref.sync.markcoroutinefunction"
        )
    return result
