"""The end of the process, and the clock that tests may step."""

from __future__ import annotations

from typing import Protocol

from dwebsocket.compat.system import monotonic
from dwebsocket.compat.without_engine.permit import wait_for_none_open


class Closable(Protocol):
    """A connection that an ASGI server keeps."""

    def close(self, code: int, reason: str) -> bool:
        """As :meth:`dwebsocket.api.connection.Connection.close`."""


#: Those that accept or are accepted. A set's ``add`` and ``discard`` are atomic.
OPEN: set[Closable] = set()
_is_leaving = False
_ahead_s = 0.0


def is_leaving() -> bool:
    """Whether the process takes no new connections any more."""
    return _is_leaving


def close_all(code: int, reason: str) -> None:
    """Closes all connections, and takes no new ones. Does not wait."""
    global _is_leaving
    _is_leaving = True
    for connection in list(OPEN):
        connection.close(code, reason)


def drain(code: int, reason: str, window: float) -> float:
    """As :func:`close_all`: at once. Gives the seconds until the last close."""
    close_all(code, reason)
    return 0.0


def shut_down(code: int, reason: str, grace: float) -> None:
    """As :func:`close_all`, and sleeps until the connections are gone, or ``grace``."""
    close_all(code, reason)
    end = monotonic() + grace
    while (wait := wait_for_none_open()) is not None and (left := end - monotonic()) > 0:
        wait.wait(left)


def reopen() -> None:
    """Takes new connections again. For tests."""
    global _is_leaving
    _is_leaving = False


def clock_ahead() -> float:
    """How many seconds the clock is ahead of the real one."""
    return _ahead_s


def step_clock(seconds: float) -> None:
    """Steps the clock ahead. For tests."""
    global _ahead_s
    _ahead_s += seconds
