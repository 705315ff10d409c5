"""
Steps that are written once: run by a thread, or awaited by a task.

Steps are a generator. It yields each call that may wait, as a :class:`Call` in its two forms, and
gets what that returns or raises. A call that has twins is written so::

    def position(self) -> str:
        return run(self._position())

    async def aposition(self) -> str:
        return await arun(self._position())

    def _position(self) -> Steps[str]:
        page: Page = yield Call(self.read, self.aread, self.name)
        return page.position

Steps include others with ``yield from``, and call functions that never wait as they are.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class Call:
    """A call that steps ask for: in two forms with the same arguments, of which one is used."""

    __slots__ = ("args", "awaited", "kwargs", "made")

    made: Callable[..., Any]
    awaited: Callable[..., Awaitable[Any]]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    def __init__(
        self,
        made: Callable[P, T],
        awaited: Callable[P, Awaitable[T]],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> None:
        """
        Notes the call.

        Args:
            made: The function for threads; it may block.
            awaited: The function for tasks.
            *args: The arguments of both.
            **kwargs: The arguments of both.
        """
        self.made = made
        self.awaited = awaited
        self.args = args
        self.kwargs = kwargs


#: Steps that end with a result. Each variable for a call's result needs an annotation.
Steps = Generator[Call, Any, T]


def run(steps: Steps[T]) -> T:
    """
    Runs steps on this thread, and returns their result.

    Raises:
        Exception: Whatever the steps raise, and what a call raises that they do not catch.
    """
    try:
        call = next(steps)
        while True:
            try:
                result = call.made(*call.args, **call.kwargs)
            except BaseException as error:
                call = steps.throw(error)
            else:
                call = steps.send(result)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]
    finally:
        # A signal's handler may raise between two calls: then they still have to clean up.
        steps.close()


async def arun(steps: Steps[T]) -> T:
    """
    Runs steps in this task, and returns their result.

    A cancellation is raised where the steps wait, as in a coroutine.

    Raises:
        Exception: As :func:`run`.
    """
    try:
        call = next(steps)
        while True:
            try:
                result = await call.awaited(*call.args, **call.kwargs)
            except BaseException as error:
                call = steps.throw(error)
            else:
                call = steps.send(result)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]
    finally:
        steps.close()
