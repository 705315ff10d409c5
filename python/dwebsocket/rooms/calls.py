"""Steps that are written once: run by a thread, or awaited by a task."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Generator
from types import CoroutineType
from typing import Any, NoReturn, TypeVar

from asgiref.sync import iscoroutinefunction, sync_to_async

from dwebsocket.exceptions import UsageError

T = TypeVar("T")


class Call:
    """
    A call that the steps ask for, in two forms, of which one is used.

    Attributes:
        made: The call on a thread.
        awaited: The call in a task.
        args: The arguments of either.
    """

    __slots__ = ("args", "awaited", "made")

    def __init__(
        self, made: Callable[..., Any], awaited: Callable[..., Awaitable[Any]], *args: Any
    ) -> None:
        self.made, self.awaited, self.args = made, awaited, args


#: Steps that give the calls they need, get their results, and end with a result of their own.
Steps = Generator[Call, Any, T]


class Hook(Call):
    """A call of a method of the project's, a function or a coroutine function."""

    __slots__ = ()

    def __init__(self, method: Callable[..., Any], *args: Any) -> None:
        self.made, self.awaited = method, functools.partial(_await_hook, method)
        self.args = args


class Twin(Call):
    """A call of the function ``name`` of an object or a module, or its async twin, ``aname``."""

    __slots__ = ()

    def __init__(self, thing: Any, name: str, *args: Any) -> None:
        self.made, self.awaited = getattr(thing, name), getattr(thing, f"a{name}")
        self.args = args


async def _await_hook(method: Callable[..., Any], *args: Any) -> Any:
    call = method if iscoroutinefunction(method) else sync_to_async(method)
    return await call(*args)


def run(steps: Steps[T]) -> T:
    """Runs steps on this thread."""
    try:
        call = next(steps)
        while True:
            try:
                result = call.made(*call.args)
                if isinstance(result, CoroutineType):
                    _refuse(result)
            except Exception as error:
                call = steps.throw(error)
            else:
                call = steps.send(result)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]
    finally:
        steps.close()


def _refuse(coroutine: CoroutineType[Any, Any, Any]) -> NoReturn:
    # It would count as a yes.
    coroutine.close()
    raise UsageError(
        "a method of a room gave a coroutine but is no coroutine function: mark it, or the "
        "decorator around it, with asgiref.sync.markcoroutinefunction"
    )


async def arun(steps: Steps[T]) -> T:
    """Runs steps in this task."""
    try:
        call = next(steps)
        while True:
            try:
                result = await call.awaited(*call.args)
                if isinstance(result, CoroutineType):
                    _refuse(result)
            except Exception as error:
                call = steps.throw(error)
            else:
                call = steps.send(result)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]
    finally:
        steps.close()
