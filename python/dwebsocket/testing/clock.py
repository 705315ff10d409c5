"""The clock that a test can step ahead."""

from __future__ import annotations

import asyncio
import math
import time
from typing import TYPE_CHECKING

from dwebsocket import _core
from dwebsocket.api import callbacks
from dwebsocket.api.arguments import check_timeout
from dwebsocket.api.waiting import loop_hub
from dwebsocket.compat.system import monotonic
from dwebsocket.testing.websocket import open_websockets

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# Small enough for pings, their answers and timeouts to happen in the usual order.
_STEP_S = 1.0
# The longest wait for a view to reach a call that waits for its client. Some views never do.
_SETTLE_S = 3.0
# The longest wait for a handler's tick.
_TICK_S = 10.0
_LOOK_S = 0.0005


class Clock:
    """
    The clock of the engine and of every timeout of ``request.websocket``.

    It runs at the usual speed, ahead of the system's by the time that the test has advanced it.
    Only WebSockets use it: ``time``, ``datetime`` and ``asyncio.sleep`` do not.
    """

    def advance(self, seconds: float) -> None:
        """
        Steps the clock ahead by ``seconds``, second by second, once each view waits for its client.

        Before that each view has handled what the test has sent to it; a view that does not within
        three seconds is not waited for. ``advance(0)`` does that alone.

        Everything that is due by then has happened when this returns: pings were sent, and the
        test's clients have answered them; silent clients were given up; due closes have begun.
        Views whose timeout was reached have been woken, and handlers have had their ticks: one for
        each second at most.

        Args:
            seconds: 0 or more.

        Raises:
            TypeError, ValueError: It is no number, negative or infinite.
        """
        for _ in _steps(seconds):
            time.sleep(_LOOK_S)

    async def aadvance(self, seconds: float) -> None:
        """
        Lets time pass, as :meth:`advance`; the event loop, and so async views, run meanwhile.

        Raises:
            TypeError, ValueError: As :meth:`advance`.
        """
        for _ in _steps(seconds):
            await asyncio.sleep(_LOOK_S)


def _steps(seconds: float) -> Iterator[None]:
    check_timeout(seconds, "seconds", is_optional=False)
    if seconds == math.inf:
        raise ValueError("seconds must be a number that ends")
    yield from _until(lambda: all(w.is_settled for w in list(open_websockets)), _SETTLE_S)
    waits = True
    while seconds > 0:
        _core.step_clock(min(seconds, _STEP_S))
        loop_hub.look_again()
        callbacks.look_again()
        for websocket in list(open_websockets):
            websocket._exchange()
        if waits:
            yield from _until(lambda: not _ticks_are_due(), _TICK_S)
            # A tick that has not ended in time is not waited for in each further step.
            waits = not _ticks_are_due()
        seconds -= _STEP_S


def _until(condition: Callable[[], bool], seconds: float) -> Iterator[None]:
    deadline = monotonic() + seconds
    while monotonic() < deadline and not condition():
        yield


def _ticks_are_due() -> bool:
    return any(websocket.is_ticking for websocket in list(open_websockets))
