"""Steps that are written once: run by a thread, or awaited by a task."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Generator
from types import CoroutineType
from typing import Any, TypeVar

from asgiref.sync import iscoroutinefunction, sync_to_async

from dwebsocket.exceptions import UsageError

T = TypeVar("T")


class Call:
    """A call that the steps ask for: in two forms, of which one is used."""

    __slots__ = ("awaited", "made")

    def __init__(self, made: Callable[[], Any], awaited: Callable[[], Awaitable[Any]]) -> None:
        self.made = made
        self.awaited = awaited


#: Steps that give the calls they need, get their results, and end with a result of their own.
Steps = Generator[Call, Any, T]


def hook(method: Callable[..., Any], *args: Any) -> Call:
    """Calls a method of the project's, a function or a coroutine function."""
    return Call(functools.partial(method, *args), functools.partial(_await_hook, method, *args))


async def _await_hook(method: Callable[..., Any], *args: Any) -> Any:
    call = method if iscoroutinefunction(method) else sync_to_async(method)
    return await call(*args)


def twin(thing: Any, name: str, *args: Any, **kwargs: Any) -> Call:
    """Calls the method ``name`` or its async twin, ``aname``."""
    return Call(
        functools.partial(getattr(thing, name), *args, **kwargs),
        functools.partial(getattr(thing, f"a{name}"), *args, **kwargs),
    )


def run(steps: Steps[T]) -> T:
    """Runs steps on this thread."""
    try:
        call = next(steps)
        while True:
            try:
                result = _checked(call.made())
            except Exception as error:
                call = steps.throw(error)
            else:
                call = steps.send(result)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]
    finally:
        steps.close()


def _checked(result: Any) -> Any:
    if isinstance(result, CoroutineType):
        # It would count as a yes.
        result.close()
        raise UsageError(
            "a method of a room gave a coroutine but is no coroutine function: mark it, or the "
            "decorator around it, with asgiref.sync.markcoroutinefunction"
        )
    return result


async def arun(steps: Steps[T]) -> T:
    """Runs steps in this task."""
    try:
        call = next(steps)
        while True:
            try:
                result = _checked(await call.awaited())
            except Exception as error:
                call = steps.throw(error)
            else:
                call = steps.send(result)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]
    finally:
        steps.close()
