"""Methods of rooms that a project writes, as calls of steps."""

from __future__ import annotations

from types import CoroutineType
from typing import TYPE_CHECKING, Any, NoReturn

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
        # Not by the class above, for one call less at each message.
        self.made, self.awaited = call, _await
        self.args, self.kwargs = (method, *args), {}


def call(method: Callable[..., Any], *args: Any) -> Any:
    """Calls a function of the project's. Raises UsageError where that gives a coroutine."""
    result = method(*args)
    if isinstance(result, CoroutineType):
        refuse(result)
    return result


async def _await(method: Callable[..., Any], *args: Any) -> Any:
    function = method if iscoroutinefunction(method) else sync_to_async(method)
    result = await function(*args)
    if isinstance(result, CoroutineType):
        refuse(result)
    return result


def refuse(result: CoroutineType[Any, Any, Any]) -> NoReturn:
    """Raises UsageError for what a function of the project's has given."""
    # It would count as a yes.
    result.close()
    raise UsageError(
        "a method of a room gave a coroutine but is no coroutine function: mark it, or the "
        "decorator around it, with asgiref.sync.markcoroutinefunction"
    )
