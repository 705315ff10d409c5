"""The open connections of one ASGI server: a process may have several."""

from __future__ import annotations

import functools
import random
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from dwebsocket.api import callbacks
from dwebsocket.api.waiting import pings
from dwebsocket.telemetry import clock

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from dwebsocket._core import Connection

# The number of connections up to which ended ones may stay in a list.
_FEW = 64


class Served:
    """
    The open connections of one server, which may stop without the process. Belongs to its loop.
    """

    #: The key under which the state of the server's lifespan has it.
    KEY = "dwebsocket.served"

    def __init__(self) -> None:
        """Begins without connections."""
        self._close: tuple[int, str] | None = None
        self._open: list[Connection] = []
        # With so many those that have ended are dropped.
        self._sweep_at = _FEW

    def __deepcopy__(self, memo: object) -> Served:
        """Returns itself: middleware may copy a scope, and what it holds cannot be copied."""
        return self

    @classmethod
    def of(cls, scope: Mapping[str, Any]) -> Served | None:
        """Returns those of the server of a scope; None where it does not say which one it is."""
        found: Served | None = (scope.get("state") or {}).get(cls.KEY)
        return found

    def add(self, connection: Connection) -> None:
        """Adds one, which is closed when the server stops: at once, if it does so already."""
        if self._close is not None:
            connection.close(*self._close)
        if len(self._open) >= self._sweep_at:
            self._sweep_at = max(_FEW, 2 * self.count())
        self._open.append(connection)

    @property
    def is_leaving(self) -> bool:
        """Whether the server stops."""
        return self._close is not None

    def count(self) -> int:
        """Counts those that are open."""
        self._open = [connection for connection in self._open if connection.end() is None]
        return len(self._open)

    def leave(
        self, code: int, reason: str, window: float, spared: Callable[[Connection], bool]
    ) -> float:
        """
        Begins to close all of them, spread over ``window`` seconds. Does not wait.

        Args:
            spared: Whether one is not to be closed: it moves to another process.

        Returns:
            The seconds until the last close begins.
        """
        self._close = code, reason
        if not self.count():
            return 0.0
        for connection in self._open:
            if not spared(connection):
                close_within(window, connection, code, reason)
        return window

    async def all_over(self, timeout: float) -> None:
        """Waits until all of them have ended, ``timeout`` seconds at most."""
        end = clock.now() + timeout
        for connection in list(self._open):
            await pings.await_closed(connection, max(0.0, end - clock.now()))


def close_within(window: float, connection: Connection, code: int, reason: str) -> None:
    """Closes a connection at some moment of the next ``window`` seconds."""
    if window:
        close = functools.partial(connection.close, code, reason)
        # Where the system gives no thread for that it is closed at once.
        with suppress(RuntimeError):
            callbacks.call_later(window * random.random(), close)  # noqa: S311
            return
    connection.close(code, reason)
