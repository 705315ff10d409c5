"""The state of the views behind a test's connections: their exceptions, and where they are."""

from __future__ import annotations

import asyncio
import threading
import traceback
from concurrent.futures import Future, TimeoutError  # its own before Python 3.11
from typing import TYPE_CHECKING, Any

from dwebsocket import _core
from dwebsocket.api.announcing import AnnouncingConnection
from dwebsocket.api.base import GOING_AWAY
from dwebsocket.api.waiting import loop_hub
from dwebsocket.compat.asyncio import running_loop
from dwebsocket.compat.threading import frame_of, frames
from dwebsocket.runners import handler as handler_life
from dwebsocket.runners import loop
from dwebsocket.runners import view as life

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

    from dwebsocket import WebSocket
    from dwebsocket.runners.view import TickingHandler


#: The views that still run although they have had their time to end.
overdue: set[ViewWatch] = set()


class ViewStillRuns(AssertionError):
    """A view still runs although its connection has ended. The message says where it is."""


class ViewWatch:
    """One view. See :class:`dwebsocket.runners.view.Witness`."""

    def __init__(self) -> None:
        #: Done when the view has ended and all of its resources are released.
        self.over: Future[None] = Future()
        self._name = "that has not begun"
        self._error: BaseException | None = None
        self._thread: int | None = None
        self._task: asyncio.Task[object] | None = None
        self._websocket: WebSocket | None = None
        self._handler: TickingHandler | None = None
        self._is_closed = False

    def began(self, name: str, websocket: WebSocket, handler: TickingHandler | None = None) -> None:
        """The view is about to begin, on this thread or in this task; or a handler anywhere."""
        self._name = name
        self._websocket = websocket
        self._handler = handler
        if self._is_closed:
            self.close()
        if handler is not None:
            return
        try:
            self._task = asyncio.current_task()
        except RuntimeError:
            self._thread = threading.get_ident()

    def failed(self, error: BaseException) -> None:
        """The view let ``error`` through."""
        self._error = error

    def ended(self) -> None:
        """The view has ended, and its resources are released."""
        self._thread = self._task = self._websocket = self._handler = None
        self.over.set_result(None)

    def close(self) -> None:
        """Closes the connection, also of a view that begins later: its client may stay for ever."""
        self._is_closed = True
        if (websocket := self._websocket) is not None:
            websocket._close_soon(*GOING_AWAY)

    def take_error(self) -> BaseException | None:
        """Returns the error that the view has let through, once."""
        error, self._error = self._error, None
        return error

    def is_waiting(self, sent: int, *, has_gone: bool) -> bool:
        """
        Whether the view waits for its client now, and has read all from it; also when it has ended.

        Args:
            sent: How many messages the client has sent.
            has_gone: Whether it has closed, or vanished: then the view has to end.
        """
        websocket = self._websocket
        if websocket is None:
            return self.over.done()
        connection: object = websocket._engine
        if isinstance(connection, AnnouncingConnection):
            connection = connection.announced
        if not isinstance(connection, _core.Connection):
            return False
        if has_gone or connection.end() is not None:
            return self.over.done()
        # In this order: who waits after the last message was taken has handled it.
        has_read = connection.messages()[0] >= sent and connection.waiting()[0] == 0
        return has_read and connection.is_awaited() and not self.is_ticking

    @property
    def is_ticking(self) -> bool:
        """Whether a tick of the handler is due or under way."""
        handler = self._handler
        return handler is not None and handler.has_due_tick

    def join(self, timeout: float) -> None:
        """
        Waits until the view has ended and its resources are released.

        Raises:
            ViewStillRuns: It was not within ``timeout`` seconds, or would need the event loop that
                this call blocks.
        """
        is_blocked = self._is_in_this_loop()
        try:
            self.over.result(0.0 if is_blocked else timeout)
        except TimeoutError:
            self.give_up()
            if is_blocked:
                raise ViewStillRuns(
                    "A view in the event loop of the test has not ended, and cannot while the test "
                    f"waits for it: close its WebSocket, by `async with`. {self.whereabouts()}"
                ) from None
            raise self.still_runs(timeout) from None

    def _is_in_this_loop(self) -> bool:
        if (running := running_loop()) is None:
            return False
        if (task := self._task) is not None:
            return task.get_loop() is running
        home = getattr(self._handler, "_home", None)
        return home is not None and home is loop_hub.current().handlers

    def give_up(self) -> None:
        """Notes that the view has had its time: nothing else of its test waits for it."""
        overdue.add(self)
        self.over.add_done_callback(lambda _: overdue.discard(self))

    def still_runs(self, timeout: float) -> ViewStillRuns:
        """Returns the error about a view that has had ``timeout`` seconds to end."""
        return ViewStillRuns(
            f"A view did not end within {timeout:g} s after its WebSocket. {self.whereabouts()}"
        )

    def whereabouts(self) -> str:
        """Says what the view is doing now, for messages."""
        if self.over.done():
            return f"The view {self._name} has ended."
        frames = self._frames()
        if not frames:
            return f"The view is {self._name}."
        stack = "".join(traceback.StackSummary.from_list(frames).format())
        return f"The view {self._name} is at:\n{stack}"

    def _frames(self) -> list[traceback.FrameSummary]:
        if (handler := self._handler) is not None:
            return _stack_of(handler)
        if (task := self._task) is not None:
            return _after(_summary(task.get_stack()), life.__file__)
        frame = frame_of(self._thread)
        return [] if frame is None else _after(traceback.extract_stack(frame), life.__file__)


def _summary(frames: list[FrameType]) -> list[traceback.FrameSummary]:
    return traceback.StackSummary.extract((frame, frame.f_lineno or 0) for frame in frames)


def _after(frames: list[traceback.FrameSummary], *files: str) -> list[traceback.FrameSummary]:
    """Returns what comes after the last one in one of these files."""
    ours = [index for index, found in enumerate(frames) if found.filename in files]
    return frames[ours[-1] + 1 :] if ours else frames


def _stack_of(handler: TickingHandler) -> list[traceback.FrameSummary]:
    """
    Returns the stack of a handler's method that is under way, from that method on, or nothing.

    Handlers note nothing about that for a test's sake. So all threads and tasks are searched for a
    call of one of the handler's methods, but only for an error message.
    """
    for stack in _stacks(handler):
        ours = [
            index
            for index, frame in enumerate(stack)
            if frame.f_code.co_filename == handler_life.__file__
            and frame.f_locals.get("self") is handler
        ]
        if ours:
            return _after(_summary(stack[ours[0] :]), handler_life.__file__, loop.__file__)
    return []


def _stacks(handler: TickingHandler) -> Iterator[list[FrameType]]:
    for frame in frames().values():
        yield [found for found, _ in traceback.walk_stack(frame)][::-1]
    for coroutine in handler.coroutines:
        yield list(_awaited(coroutine))


def _awaited(coroutine: Any) -> Iterator[FrameType]:
    """Returns the frames of a suspended coroutine, and of those that it awaits."""
    while (frame := getattr(coroutine, "cr_frame", None)) is not None:
        yield frame
        coroutine = coroutine.cr_await
