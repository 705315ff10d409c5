"""The clock by which timeouts are measured: the system's, ahead of it where a test stepped it."""

from __future__ import annotations

import time

from dwebsocket import _core
from dwebsocket.compat.system import monotonic


def now() -> float:
    """Gives seconds since some moment, as :func:`time.monotonic`."""
    return monotonic() + _core.clock_ahead()


def wall() -> float:
    """Gives the seconds of the epoch, as :func:`time.time`: for what other processes read."""
    return time.time() + _core.clock_ahead()
