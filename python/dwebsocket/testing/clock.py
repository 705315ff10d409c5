"""Time that passes as soon as a test says so."""

from __future__ import annotations

from dwebsocket import _core, hub
from dwebsocket.testing.scope import open_websockets

# Small enough for pings, their answers and timeouts to come in the order in which they would.
_STEP_S = 1.0


class Clock:
    """
    The clock of the engine and of every timeout of ``request.websocket``.

    It runs as ever, and ahead of the system's by what the test has advanced it. Only WebSockets
    look at it: ``time``, ``datetime`` and ``asyncio.sleep`` do not.
    """

    def advance(self, seconds: float) -> None:
        """
        Lets ``seconds`` pass at once, second by second.

        What was due by then has happened when this returns: pings have gone out, and the test's
        clients have answered them; silent clients are given up; goodbyes are said. Views whose
        timeout was reached have been woken.

        Args:
            seconds: 0 or more.

        Raises:
            ValueError: It is negative.
        """
        if seconds < 0:
            raise ValueError(f"time does not go back: {seconds}")
        while seconds > 0:
            _core.step_clock(min(seconds, _STEP_S))
            hub.look_again()
            for websocket in list(open_websockets):
                websocket._look()
            seconds -= _STEP_S
