"""The end of the process, and the clock that tests may step."""

from __future__ import annotations

from dwebsocket.compat.system import monotonic
from dwebsocket.compat.without_engine.permit import wait_for_none_open

_is_leaving = False
_ahead_s = 0.0


def is_leaving() -> bool:
    """Whether the process takes no new connections any more."""
    return _is_leaving


def close_all(code: int, reason: str) -> None:
    """Takes no new connections; :mod:`dwebsocket.servers.asgi.closing` closes those that are."""
    global _is_leaving
    _is_leaving = True


def drain(code: int, reason: str, window: float) -> float:
    """As :func:`close_all`. Gives the seconds until the last close: none is due here."""
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
