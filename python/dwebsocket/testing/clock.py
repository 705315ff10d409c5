"""Time that passes as soon as a test says so."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from dwebsocket import _core, callbacks
from dwebsocket.testing.scope import open_websockets
from dwebsocket.waiting import loop_hub

if TYPE_CHECKING:
    from collections.abc import Iterator

# Small enough for pings, their answers and timeouts to come in the order in which they would.
_STEP_S = 1.0
# How long a view has to come to where it waits for its client. Some never do.
_SETTLE_S = 1.0
_LOOK_S = 0.0005


class Clock:
    """
    The clock of the engine and of every timeout of ``request.websocket``.

    It runs as ever, and ahead of the system's by what the test has advanced it. Only WebSockets
    look at it: ``time``, ``datetime`` and ``asyncio.sleep`` do not.
    """

    def advance(self, seconds: float) -> None:
        """
        Lets ``seconds`` pass at once, second by second, as soon as each view waits for its client.

        What was due by then has happened when this returns: pings have gone out, and the test's
        clients have answered them; silent clients are given up; due closes have begun. Views whose
        timeout was reached have been woken.

        Args:
            seconds: 0 or more.

        Raises:
            ValueError: It is negative.
        """
        _check(seconds)
        for _ in _until_views_wait():
            time.sleep(_LOOK_S)
        _step(seconds)

    async def aadvance(self, seconds: float) -> None:
        """As :meth:`advance`, for async tests, whose views need the event loop meanwhile."""
        _check(seconds)
        for _ in _until_views_wait():
            await asyncio.sleep(_LOOK_S)
        _step(seconds)


def _check(seconds: float) -> None:
    if seconds < 0:
        raise ValueError(f"time does not go back: {seconds}")


def _until_views_wait() -> Iterator[None]:
    deadline = time.monotonic() + _SETTLE_S
    while time.monotonic() < deadline and not all(w.is_settled for w in list(open_websockets)):
        yield


def _step(seconds: float) -> None:
    while seconds > 0:
        _core.step_clock(min(seconds, _STEP_S))
        loop_hub.look_again()
        callbacks.look_again()
        for websocket in list(open_websockets):
            websocket._look()
        seconds -= _STEP_S
