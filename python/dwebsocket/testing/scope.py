"""One test's WebSockets: those left open are closed, those that stay are reported."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from dwebsocket import _core, callbacks
from dwebsocket.runners import loop, thread, view
from dwebsocket.testing.databases import shared_databases
from dwebsocket.testing.watch import ViewWatch
from dwebsocket.waiting import loop_hub

if TYPE_CHECKING:
    from collections.abc import Iterator


class OpenWebSocket(Protocol):
    """A test's WebSocket, for what all of them are held for: a step of the clock, and their end."""

    timeout: float

    @property
    def is_settled(self) -> bool:
        """Whether its view waits for its client."""

    def _look(self) -> None:
        """Takes in what has come."""

    def give_up(self, timeout: float) -> None:
        """Closes it, and waits for its view."""


#: Those that are open now, of all tests of this process.
open_websockets: set[OpenWebSocket] = set()

# The engine notices a client's end at once, but on a thread of its own.
_LOOK_S = 0.001
# Threads without a view go at once. A view that an earlier test has left behind keeps its own.
_DISMISS_S = 0.2


class WebSocketLeak(AssertionError):
    """A test is over, and connections of its WebSockets are not."""


@contextmanager
def websockets_of_a_test(timeout: float = 10.0) -> Iterator[None]:
    """
    Holds the WebSockets of one test: all that is in between.

    All threads use the test's database connections meanwhile. At the end every WebSocket is closed
    and its view has ended; a process that a test has drained takes connections again.

    Args:
        timeout: Seconds for each view to end, if its WebSocket has no shorter one.

    Raises:
        ViewStillRuns: A view goes on without its WebSocket.
        WebSocketLeak: Other code still holds a connection.
    """
    before = _core.open_connections()
    others = set(open_websockets)
    # Views of a live server, mostly.
    unknown: list[ViewWatch] = []

    def find() -> ViewWatch:
        unknown.append(watch := ViewWatch())
        return watch

    with shared_databases():
        undo = view.watch_others(find)
        try:
            yield
        finally:
            try:
                close_all(timeout, but=others)
            finally:
                if _core.is_leaving():
                    _core.reopen()
                undo()
            _wait_until_given_back(before, timeout)
            for watch in unknown:
                watch.join(timeout)
            for end in (callbacks.dismiss, thread.join, loop.dismiss):
                end(_DISMISS_S)
            loop_hub.forget_closed()


def close_all(timeout: float, *, but: set[OpenWebSocket]) -> None:
    """Closes all open WebSockets ``but`` some; raises the first error when all are closed."""
    errors: list[AssertionError] = []
    for websocket in open_websockets - but:
        try:
            websocket.give_up(min(timeout, websocket.timeout))
        except AssertionError as error:
            errors.append(error)
    if errors:
        raise errors[0]


def _wait_until_given_back(before: int, timeout: float) -> None:
    deadline = time.monotonic() + timeout
    while (left := _core.open_connections() - before) > 0:
        if time.monotonic() > deadline:
            raise WebSocketLeak(
                f"the test has ended, but {left} of its connections have not within {timeout:g} s"
            )
        time.sleep(_LOOK_S)
