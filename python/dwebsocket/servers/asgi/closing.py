"""The open connections of this process on ASGI servers, and how all of them are closed."""

from __future__ import annotations

import random
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol

from dwebsocket import clock
from dwebsocket.compat.system import at_fork

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

# Seconds between two readings of the clock, which a test may step.
_LOOK_S = 1.0


class Closable(Protocol):
    """The part of a connection that this module uses."""

    @property
    def gone(self) -> asyncio.Future[None]:
        """Done when nothing is left of it; belongs to the server's loop."""

    def close(self, code: int, reason: str) -> bool:
        """As :meth:`dwebsocket.connection.Connection.close`."""


#: Those that accept or are accepted. A set's ``add`` and ``discard`` are atomic under the GIL.
OPEN: set[Closable] = set()


def close_all(code: int, reason: str) -> None:
    """Begins to close all connections of this process. Does not wait. Any thread may call it."""
    for connection in list(OPEN):
        connection.close(code, reason)


def drain(code: int, reason: str, window: float) -> float:
    """
    Closes all connections of this process, spread over ``window`` seconds. Does not wait.

    Gives the seconds until the last close begins. Any thread may call it, also again: each
    connection is closed at the earliest of its times.
    """
    connections = list(OPEN)
    if not window:
        close_all(code, reason)
        return 0.0
    random.shuffle(connections)
    part, now = window / max(1, len(connections)), clock.now()
    for index, connection in enumerate(connections):
        loop, due = connection.gone.get_loop(), now + part * (index + random.random())  # noqa: S311
        with suppress(RuntimeError):
            # A closed loop raises RuntimeError; it has no connections any more.
            loop.call_soon_threadsafe(call_at, loop, due, connection.close, code, reason)
    return window if connections else 0.0


def call_at(
    loop: asyncio.AbstractEventLoop, due: float, call: Callable[..., object], *args: Any
) -> None:
    """Calls ``call`` in its loop at a time of :mod:`dwebsocket.clock`, which a test may step."""
    left = due - clock.now()
    if left <= 0:
        call(*args)
    else:
        loop.call_later(min(left, _LOOK_S), call_at, loop, due, call, *args)


# The parent's loop does not run in a forked child.
at_fork(OPEN.clear)
