"""The time that timeouts are measured by: the system's, or ahead of it where a test has stepped."""

from __future__ import annotations

import time

from dwebsocket import _core


def now() -> float:
    """Gives seconds since some moment, as :func:`time.monotonic`."""
    return time.monotonic() + _core.clock_ahead()
