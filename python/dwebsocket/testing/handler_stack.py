"""
Where a handler's method is: on which thread, or in which task.

Handlers note nothing about that for a test's sake. So all threads and tasks are searched for a call
of one of the handler's methods, but only for an error message.
"""

from __future__ import annotations

import traceback
from typing import TYPE_CHECKING, Any

from dwebsocket.compat.threading import frames
from dwebsocket.runners import handler as life
from dwebsocket.runners import loop

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

    from dwebsocket.runners.view import TickingHandler

_OURS = (life.__file__, loop.__file__)


def stack_of(handler: TickingHandler) -> list[traceback.FrameSummary]:
    """
    Returns the stack of a handler's method that is under way, from that method on, or nothing.
    """
    for stack in _stacks(handler):
        ours = [
            index
            for index, frame in enumerate(stack)
            if frame.f_code.co_filename == life.__file__ and frame.f_locals.get("self") is handler
        ]
        if ours:
            summary = traceback.StackSummary.extract(
                (frame, frame.f_lineno or 0) for frame in stack[ours[0] :]
            )
            own = [index for index, found in enumerate(summary) if found.filename in _OURS]
            return list(summary)[own[-1] + 1 :]
    return []


def _stacks(handler: TickingHandler) -> Iterator[list[FrameType]]:
    for frame in frames().values():
        yield [found for found, _ in traceback.walk_stack(frame)][::-1]
    for task in handler.tasks:
        yield list(_awaited(task.get_coro()))


def _awaited(coroutine: Any) -> Iterator[FrameType]:
    """Returns the frames of a suspended coroutine, and of those that it awaits."""
    while (frame := getattr(coroutine, "cr_frame", None)) is not None:
        yield frame
        coroutine = coroutine.cr_await
