"""
Pings that a view sends, and waits for the end of a connection.

The engine wakes both kinds of callers at each answer and at the end; then they check again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dwebsocket.api.waiting import loop_hub
from dwebsocket.api.waiting.steps import Call
from dwebsocket.exceptions import ConnectionClosed, PingTimeout
from dwebsocket.telemetry import clock

if TYPE_CHECKING:
    from dwebsocket import _core
    from dwebsocket._core import Connection
    from dwebsocket.api.waiting.steps import Steps
    from dwebsocket.api.waiting.waiter import Look, T, Waiter


class Pings:
    """A connection, watched until ``look`` finds an answer to a ping, or the end."""

    __slots__ = ("_connection", "_look", "unwatch")

    def __init__(self, connection: Connection, look: Look[Any]) -> None:
        self._connection = connection
        self._look = look
        self.unwatch = connection.unwatch_pings

    def watch(self, hub: _core.Hub, token: int) -> None:
        """
        Puts ``token`` on the hub's list at the answer or the end; now, if one has come already.
        """
        self._connection.watch_pings(hub, token)
        if self._look(0) is not None:
            hub.announce(token)


def ping(
    connection: Connection, waiter: Waiter, timeout: float | None, peer: str = "client"
) -> Steps[float]:
    """
    Sends a ping and waits for its answer: the work of :meth:`dwebsocket.WebSocket.ping`.

    Args:
        peer: What answers it, for messages.

    Raises:
        PingTimeout: No answer came in time.
        ConnectionClosed: The connection has ended.
        UnsupportedServer: The server sends no pings of applications.
    """
    deadline = None if timeout is None else clock.now() + timeout
    took: float | None = None
    while (sent := connection.begin_ping()) is None:
        left = _left(deadline)
        if connection.end() is not None or left == 0:
            break
        yield Call(waiter.await_room, _await_room, connection, left)
    else:
        took = yield Call(waiter.wait_for, _wait_for, connection, sent.wait, _left(deadline))
    if took is not None:
        return took
    if (end := connection.end()) is not None:
        raise ConnectionClosed(*end)
    raise PingTimeout(f"the {peer} answered no ping within {timeout} s")


def wait_closed(connection: Connection, waiter: Waiter, timeout: float | None) -> bool:
    """Waits for the end, and returns whether it has come, for ``WebSocket.wait_closed``."""
    return waiter.wait_for(connection, _look_for_end(connection), timeout) is True


async def await_closed(connection: Connection, timeout: float | None) -> bool:
    """Waits for the end in the running loop, and returns whether it has come."""
    return await _wait_for(connection, _look_for_end(connection), timeout) is True


def _look_for_end(connection: Connection) -> Look[bool]:
    return lambda timeout: connection.await_end(timeout) or None


async def _await_room(connection: Connection, timeout: float | None) -> None:
    await loop_hub.current().wait(connection, connection.watch_outbox, timeout)


async def _wait_for(connection: Connection, look: Look[T], timeout: float | None) -> T | None:
    """Waits in an event loop until ``look`` finds something, or the end comes."""
    deadline = None if timeout is None else clock.now() + timeout
    while True:
        # Read the end before the look: an answer that came before the end counts.
        ended = connection.end() is not None
        found = look(0)
        left = _left(deadline)
        if found is not None or ended or left == 0:
            return found
        pings = Pings(connection, look)
        await loop_hub.current().wait(pings, pings.watch, left)


def _left(deadline: float | None) -> float | None:
    return None if deadline is None else max(0.0, deadline - clock.now())
