"""One test's WebSockets: at its end open ones are closed, and ones that stay are reported."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Any

from dwebsocket import _core
from dwebsocket.api import callbacks
from dwebsocket.api.arguments import check_timeout
from dwebsocket.api.waiting import loop_hub
from dwebsocket.compat.system import monotonic
from dwebsocket.runners import handler_threads, loop, thread, view
from dwebsocket.testing.databases import shared_databases
from dwebsocket.testing.groups import groups_of_a_test
from dwebsocket.testing.watch import ViewWatch, overdue
from dwebsocket.testing.websocket import open_websockets

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


# Seconds between two checks. The engine sees a client's end at once, but on a thread of its own.
_LOOK_S = 0.001
# Threads without a view end at once. A view that an earlier test has left running keeps its thread.
_DISMISS_S = 0.2


class WebSocketLeak(AssertionError):
    """A test has ended, but connections of its WebSockets are still held."""


@contextlib.contextmanager
def websockets_of_a_test(timeout: float = 10.0) -> Iterator[None]:
    """
    Manages the WebSockets of one test: those that open within the block.

    All threads use the test's database connections meanwhile, and groups are the test's own. At the
    end every WebSocket is closed and its view has ended; a process that the test has drained takes
    connections again.

    Args:
        timeout: Seconds for each view to end, if its WebSocket has no shorter one.

    Raises:
        ViewStillRuns: A view still runs although its WebSocket is closed.
        WebSocketLeak: Other code still holds a connection.
    """
    check_timeout(timeout, is_optional=False)
    before = _core.open_connections()
    others, earlier = set(open_websockets), set(overdue)
    # Views without a WebSocket of the test kit: most are a live server's.
    unknown: list[ViewWatch] = []
    is_over = False

    def find() -> ViewWatch:
        unknown.append(watch := ViewWatch())
        if is_over:
            watch.close()
        return watch

    with groups_of_a_test(), shared_databases():
        undo = view.watch_others(find)
        try:
            yield
        finally:
            errors: list[AssertionError] = []
            for websocket in open_websockets - others:
                errors += _errors_of(websocket.give_up, min(timeout, websocket.timeout))
            is_over = True
            for watch in list(unknown):
                watch.close()
            if _core.is_leaving():
                _core.reopen()
            # Also those that begin meanwhile.
            for watch in unknown:
                errors += _errors_of(watch.join, 0.0 if errors else timeout)
            errors += _errors_of(_wait_until_given_back, before, earlier, timeout)
            undo()
            for end in (callbacks.dismiss, thread.join, loop.dismiss, _wait_for_handler_threads):
                end(_DISMISS_S)
            loop_hub.forget_closed()
            if errors:
                raise errors[0]


def _errors_of(step: Callable[..., object], *arguments: Any) -> list[AssertionError]:
    """Makes a call, and returns its error if it fails: the steps after it are taken too."""
    try:
        step(*arguments)
    except AssertionError as error:
        return [error]
    return []


def _wait_for_handler_threads(timeout: float) -> None:
    # They end by themselves with the last handler.
    deadline = monotonic() + timeout
    while handler_threads.home().are_alive and monotonic() < deadline:
        time.sleep(_LOOK_S)


def _wait_until_given_back(before: int, earlier: set[ViewWatch], timeout: float) -> None:
    deadline = monotonic() + timeout
    # A view that is overdue still has its connection.
    while (left := _core.open_connections() - before - len(overdue - earlier)) > 0:
        if monotonic() > deadline:
            raise WebSocketLeak(
                f"the test has ended, but {left} of its connections have not within {timeout:g} s"
            )
        time.sleep(_LOOK_S)
