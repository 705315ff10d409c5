"""Methods of rooms that a project writes, as calls of steps."""

from __future__ import annotations

from types import CoroutineType
from typing import TYPE_CHECKING, Any, NoReturn

from asgiref.sync import iscoroutinefunction, sync_to_async
from django.http.response import HttpResponseBase

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


def question(method: Callable[[], Any]) -> Call:
    """
    Returns the call of a method whose answer is yes or no, such as a queryset.

    It raises UsageError for a coroutine as :class:`Hook`, TypeError for a response: else a yes.
    """
    return Call(_ask, _await_answer, method)


def call(method: Callable[..., Any], *args: Any) -> Any:
    """Calls a function of the project's. Raises UsageError where that gives a coroutine."""
    result = method(*args)
    if isinstance(result, CoroutineType):
        refuse(result)
    return result


def _ask(method: Callable[[], Any]) -> bool:
    # Here: to ask a queryset takes a query.
    return _is_yes(call(method))


async def _await_answer(method: Callable[[], Any]) -> bool:
    if iscoroutinefunction(method):
        return _is_yes(await _await(method))
    return bool(await _await(_ask, method))


def _is_yes(answer: Any) -> bool:
    if isinstance(answer, HttpResponseBase):
        raise TypeError(f"allow() of a room returns True or False, no response: {answer!r}")
    return bool(answer)


async def _await(method: Callable[..., Any], *args: Any) -> Any:
    if iscoroutinefunction(method):
        result = await method(*args)
    else:
        result = await sync_to_async(_without_stop)(method, *args)
    if isinstance(result, CoroutineType):
        refuse(result)
    return result


def _without_stop(method: Callable[..., Any], *args: Any) -> Any:
    try:
        return method(*args)
    except StopIteration as error:
        # No future can have it: the caller would wait for ever.
        raise RuntimeError(f"{method!r} raised StopIteration") from error


def refuse(result: CoroutineType[Any, Any, Any]) -> NoReturn:
    """Raises UsageError for what a function of the project's has given."""
    # It would count as a yes.
    result.close()
    raise UsageError(
        "a method of a room gave a coroutine but is no coroutine function: mark it, or the "
        "decorator around it, with asgiref.sync.markcoroutinefunction"
    )
