"""Calls check the times that they get: NaN stops the timers of a hub of green threads."""

from __future__ import annotations

import asyncio
import math
import subprocess
import sys
import textwrap
import threading
from concurrent.futures import Future
from decimal import Decimal
from fractions import Fraction
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import pytest

from dwebsocket import statistics
from dwebsocket.api.helpers import Helper, Ticker
from dwebsocket.api.waiting.waiter import THREAD
from dwebsocket.conf import channel_settings
from dwebsocket.testing import Clock, WebSocketClient, websockets_of_a_test

if TYPE_CHECKING:
    from collections.abc import Callable

    Call = Callable[[Any], object]

Open = Any
HUGE = pytest.param(10**400, id="huge")


class _Ticker(Ticker):
    def stop(self) -> None:
        raise NotImplementedError


def _enter(timeout: Any) -> None:
    with websockets_of_a_test(timeout):
        raise AssertionError("it was entered")


@pytest.fixture
def calls(open_websocket: Open) -> dict[str, Call]:
    """The calls that take a time, by names for messages."""
    websocket = open_websocket().websocket
    ticker = _Ticker(THREAD)
    ticker._ended = Future()
    return {
        "wait": websocket.wait,
        "receive": websocket.receive,
        "areceive": lambda time: asyncio.run(websocket.areceive(time)),
        "ping": websocket.ping,
        "aping": lambda time: asyncio.run(websocket.aping(time)),
        "wait_closed": websocket.wait_closed,
        "await_closed": lambda time: asyncio.run(websocket.await_closed(time)),
        "can_read": websocket.protocol.can_read,
        "join of start()": Helper("helper", THREAD).join,
        "join of every()": ticker.join,
        "statistics": lambda time: statistics("site", timeout=time),
        "a test's WebSocket": lambda time: WebSocketClient().websocket("/", timeout=time),
        "a test's WebSockets": _enter,
    }


CALLS = (
    *("wait", "receive", "areceive", "ping", "aping", "wait_closed", "await_closed", "can_read"),
    *("join of start()", "join of every()", "statistics"),
    *("a test's WebSocket", "a test's WebSockets"),
)


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("time", [math.nan, HUGE])
def test_a_time_that_cannot_be(calls: dict[str, Call], name: str, time: float) -> None:
    """No call waits for it."""
    with pytest.raises(ValueError, match=r"^timeout must be .* a number of seconds, not"):
        calls[name](time)


# The original's `wait` takes negative times for None.
@pytest.mark.parametrize("name", [name for name in CALLS if name != "wait"])
@pytest.mark.parametrize("time", [-1, -math.inf])
def test_a_negative_time(calls: dict[str, Call], name: str, time: float) -> None:
    """Is refused alike."""
    test_a_time_that_cannot_be(calls, name, time)


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("time", ["1", b"1", Decimal(1), object(), [1]])
def test_a_time_that_is_no_number(calls: dict[str, Call], name: str, time: Any) -> None:
    """The text names the argument and the type."""
    kind = type(time).__name__
    with pytest.raises(TypeError, match=rf"^timeout must be .* a number of seconds, not {kind}$"):
        calls[name](time)


@pytest.mark.parametrize("time", [math.inf, 1e300, 1e8, Fraction(10**9)])
@pytest.mark.parametrize("name", ["wait", "receive", "areceive", "can_read"])
def test_a_time_that_is_too_long_for_the_system(open_websocket: Open, name: str, time: Any) -> None:
    """It is waited for, and something may come before."""
    live = open_websocket()
    websocket = live.websocket
    made: dict[str, Call] = {
        "wait": websocket.wait,
        "receive": websocket.receive,
        "areceive": lambda time: asyncio.run(websocket.areceive(time)),
        "can_read": websocket.protocol.can_read,
    }
    sender = threading.Timer(0.01, live.client.send, ["hello"])
    sender.start()
    assert made[name](time) in ("hello", b"hello", True)
    sender.join(10)


@pytest.mark.parametrize("time", [math.inf, 1e300, 1e8])
def test_joins_take_a_time_that_is_too_long_for_the_system(time: float) -> None:
    """They return when the function has ended."""
    helper, ticker = Helper("helper", THREAD), _Ticker(THREAD)
    threading.Timer(0.01, helper._end).start()
    threading.Timer(0.01, ticker._end).start()
    assert helper.join(time)
    assert ticker.join(time)


@pytest.mark.parametrize("seconds", [math.nan, math.inf, -1, HUGE])
def test_a_clock_that_is_stepped_without_end(seconds: float) -> None:
    """It would never return."""
    with pytest.raises(ValueError, match=r"^seconds must be"):
        Clock().advance(seconds)


@pytest.mark.parametrize("seconds", [None, "1", Decimal(1)])
def test_a_clock_that_is_stepped_by_no_number(seconds: Any) -> None:
    """The text names the argument."""
    with pytest.raises(TypeError, match=r"^seconds must be 0 or a number of seconds, not"):
        Clock().advance(seconds)


@pytest.mark.parametrize("seconds", [math.inf, 1e9, HUGE, math.nan, 0])
def test_calls_that_never_come(open_websocket: Open, seconds: float) -> None:
    """As for the attribute `every` of handlers."""
    with pytest.raises(ValueError, match="a number of seconds above 0, not"):
        open_websocket().websocket.every(seconds, print)


@pytest.mark.parametrize("value", [math.inf, math.nan, 0])
def test_a_time_of_channels(value: float) -> None:
    """Messages that never expire would stay."""
    (problem,) = channel_settings.problems({"expiry": value})
    assert problem[0] == "['expiry']"


@pytest.mark.parametrize("library", ["gevent", "eventlet"])
def test_green_threads_go_on(library: str) -> None:
    """Their loop is asked for no time that stops it."""
    if find_spec(library) is None:
        pytest.skip(f"{library} is not installed")
    code = f"""
        import math
        from django.conf import settings
        settings.configure()
        from dwebsocket.api.helpers import Helper, Ticker
        from dwebsocket.runners.{library} import RUNNER
        import {library}

        class Made(Ticker):
            def stop(self): ...

        def refused(call):
            try:
                call(math.nan)
            except ValueError as error:
                print(error)

        for call in (Helper("", RUNNER.waiter).join, Made(RUNNER.waiter).join):
            {library}.spawn(refused, call)
        {library}.sleep(0)
        {library}.sleep(0.05)
        print("went on")
    """
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    expected = "timeout must be None, 0 or a number of seconds, not nan"
    assert done.stdout.splitlines() == [expected, expected, "went on"], done.stderr
