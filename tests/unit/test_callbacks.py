"""Calls at the end of a connection and after a time, from one thread."""

from __future__ import annotations

import asyncio
import queue
import threading
import weakref
from typing import TYPE_CHECKING, Any

import pytest

from dwebsocket.api import callbacks
from dwebsocket.telemetry import clock
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from peer import LiveWebSocket


@pytest.fixture
def thread() -> Iterator[callbacks.CallbackThread]:
    """One of the test's own."""
    made = callbacks.CallbackThread()
    yield made
    assert made.dismiss(10)


@pytest.fixture
def called() -> queue.SimpleQueue[Any]:
    """The calls that were made."""
    return queue.SimpleQueue()


def count() -> int:
    """Count the threads."""
    return sum(each.name == "dwebsocket-callbacks" for each in threading.enumerate())


def test_at_the_end_of_a_connection(
    thread: callbacks.CallbackThread,
    called: queue.SimpleQueue[Any],
    open_websocket: Callable[..., LiveWebSocket],
) -> None:
    """Once, also when it has ended before."""
    live = open_websocket()
    thread.at_end(live.connection, lambda: called.put(1))
    live.client.close()
    assert called.get(timeout=10) == 1
    thread.at_end(live.connection, lambda: called.put(2))
    assert called.get(timeout=10) == 2


def test_timers_come_in_the_order_of_their_moments(
    thread: callbacks.CallbackThread,
    called: queue.SimpleQueue[Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The order in which they were set does not matter."""
    moment = clock.now()
    with monkeypatch.context() as standing:
        standing.setattr(clock, "now", lambda: moment)
        for delay in (0.06, 0.02, 0.04):
            thread.call_later(delay, lambda delay=delay: called.put(delay))  # type: ignore[misc]
    assert [called.get(timeout=10) for _ in range(3)] == [0.02, 0.04, 0.06]


def test_a_cancelled_timer_holds_nothing(
    thread: callbacks.CallbackThread, called: queue.SimpleQueue[Any]
) -> None:
    """Not until its moment, and never calls."""

    class Held:
        def call(self) -> None:
            called.put("cancelled")

    held = Held()
    gone = weakref.ref(held)
    cancel = thread.call_later(3600, held.call)
    del held
    cancel()
    eventually(lambda: gone() is None)
    thread.call_later(0, lambda: called.put("next"))
    assert called.get(timeout=10) == "next"


def test_an_exception_is_logged_and_the_next_call_comes(
    thread: callbacks.CallbackThread, called: queue.SimpleQueue[Any], request_log: Any
) -> None:
    """One thread makes the calls of all connections."""
    thread.call_later(0, lambda: 1 / 0)  # type: ignore[arg-type,return-value]
    thread.call_later(0.01, lambda: called.put("next"))
    assert called.get(timeout=10) == "next"
    assert len(request_log("dwebsocket")) == 1


def test_the_thread_goes_when_nothing_is_left(
    called: queue.SimpleQueue[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And comes back for the next call."""
    monkeypatch.setattr(callbacks, "_LINGER_S", 0.01)
    eventually(lambda: count() == 0, what="no thread of another test")
    thread = callbacks.CallbackThread()
    for _ in range(2):
        thread.call_later(0, lambda: called.put(1))
        assert called.get(timeout=10) == 1
        eventually(lambda: count() == 0)
    assert thread.dismiss(0)


def test_many_cancelled_timers_do_not_heap_up(thread: callbacks.CallbackThread) -> None:
    """Connections come and go while their tickers' moments are far away."""
    for _ in range(1000):
        thread.call_later(3600, lambda: None)()
    assert len(thread._timers) < 200


@pytest.mark.parametrize("error", [SystemExit, GeneratorExit, asyncio.CancelledError])
def test_goes_on_after_any_exception(
    thread: callbacks.CallbackThread,
    called: queue.SimpleQueue[Any],
    request_log: Callable[..., list[Any]],
    error: type[BaseException],
) -> None:
    """Also one that ends other threads: the calls of other connections wait behind it."""

    def fail() -> None:
        raise error

    thread.call_later(0, fail)
    thread.call_later(0, lambda: called.put(1))
    assert called.get(timeout=10) == 1
    assert [record.exc_info[0] for record in request_log("dwebsocket")] == [error]


@pytest.mark.parametrize("fails", ["the call of the system", "its own code"])
def test_thread_that_fails_goes_on(
    thread: callbacks.CallbackThread,
    called: queue.SimpleQueue[Any],
    monkeypatch: pytest.MonkeyPatch,
    request_log: Callable[..., list[Any]],
    open_websocket: Callable[..., LiveWebSocket],
    fails: str,
) -> None:
    """By itself: those who wait for the ends of connections cannot know it. The log does."""

    def fail(*_: object) -> None:
        raise OSError(24, "Too many open files")

    live = open_websocket()
    with monkeypatch.context() as failing:
        if fails == "its own code":
            failing.setattr(thread, "_make_calls", fail)
        else:
            failing.setattr(callbacks.unpatched, "selector", fail)
        thread.at_end(live.connection, lambda: called.put(1))
        live.client.close()
        eventually(lambda: request_log("dwebsocket"), what="it is logged")
    assert called.get(timeout=10) == 1
    assert {record.exc_info[0] for record in request_log("dwebsocket")} == {OSError}
