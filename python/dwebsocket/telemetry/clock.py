"""The clock by which timeouts are measured: the system's, ahead of it where a test stepped it."""

from __future__ import annotations

import time

from dwebsocket import _core
from dwebsocket.compat.system import at_fork

# Here, since all that uses the engine has this clock: a forked child leaves its parent's engine
# alone, whatever parts of the package it has imported.
at_fork(lambda: _core.after_fork_in_child())


#: Returns seconds since some moment of this process.
now = _core.now


def wall() -> float:
    """Returns the seconds of the epoch, as :func:`time.time`: for what other processes read."""
    return time.time() + _core.clock_ahead()
