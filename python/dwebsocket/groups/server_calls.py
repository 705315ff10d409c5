"""How callers wait for a backend's server: threads, green threads, tasks."""

from __future__ import annotations

import os
import time
from collections import deque
from typing import TYPE_CHECKING

from dwebsocket import _core
from dwebsocket.compat import eventlet, gevent
from dwebsocket.waiting import loop_hub

if TYPE_CHECKING:
    from collections.abc import Callable

    Select = Callable[[int, float], object]
    #: A number, a page of a log, or the reason for a failure; None while there is none of them.
    Outcome = int | str | tuple[tuple[int, int], list[tuple[int, int, bytes]]] | None

# Hubs that are not in use, each with one descriptor to wait at.
_spare: deque[_core.Hub] = deque(maxlen=64)
os.register_at_fork(after_in_child=_spare.clear)


def wait(call: _core.RedisCall, timeout: float) -> Outcome:
    """
    Sleeps until a call has an outcome, ``timeout`` seconds at most, and gives it.

    A green thread lets the others of its hub run meanwhile.
    """
    select = gevent.green_select() or eventlet.green_select()
    if select is None:
        call.wait(timeout)
    else:
        _wait_green(call, timeout, select)
    return call.outcome()


def _wait_green(call: _core.RedisCall, timeout: float, select: Select) -> None:
    deadline = time.monotonic() + timeout
    hub = _spare.pop() if _spare else _core.Hub()
    call.watch(hub, 0)
    try:
        while call.outcome() is None:
            left = deadline - time.monotonic()
            if left <= 0:
                break
            select(hub.fileno(), left)
            # Also wake-ups of the call that used the hub before.
            hub.drain()
    finally:
        call.unwatch(hub, 0)
    _spare.append(hub)


async def await_call(call: _core.RedisCall, timeout: float) -> Outcome:
    """As :func:`wait`, without blocking the event loop."""
    await loop_hub.current().wait(call, call.watch, timeout)
    return call.outcome()
