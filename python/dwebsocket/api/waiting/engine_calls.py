"""How callers wait for a call of the engine to a server: threads, green threads, tasks."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Protocol, TypeVar

from dwebsocket import _core
from dwebsocket.api.waiting import loop_hub
from dwebsocket.compat import eventlet, gevent
from dwebsocket.compat.system import at_fork, monotonic

if TYPE_CHECKING:
    from collections.abc import Callable

    Select = Callable[[int, float], object]
    #: A number, a page of a log, or the reason for a failure; None while there is none of them.
    Outcome = int | str | tuple[tuple[int, int], list[tuple[int, int, bytes]]] | None

T_co = TypeVar("T_co", covariant=True)


class EngineCall(Protocol[T_co]):
    """A call that is under way in the engine, such as :class:`dwebsocket._core.Call`."""

    def wait(self, timeout: float | None) -> bool:
        """Sleeps until there is an outcome; false when the time was up."""

    def watch(self, hub: _core.Hub, token: int) -> None:
        """Puts ``token`` on the hub's list as soon as there is an outcome."""

    def unwatch(self, hub: _core.Hub, token: int) -> None:
        """Takes :meth:`watch` back."""

    def outcome(self) -> T_co:
        """Returns the outcome; None when there is none yet."""


# The longest time that is waited for at once.
_LONGEST_S = 86_400.0

# Hubs that are not in use, each with one descriptor to wait at.
_spare: deque[_core.Hub] = deque(maxlen=64)
at_fork(_spare.clear)


def wait(call: EngineCall[T_co], timeout: float | None) -> T_co:
    """
    Sleeps until a call has an outcome, ``timeout`` seconds at most (None: as long as it takes).

    A green thread lets the others of its hub run meanwhile.
    """
    select = gevent.green_select() or eventlet.green_select()
    if select is None:
        call.wait(timeout)
    else:
        _wait_green(call, timeout, select)
    return call.outcome()


def _wait_green(call: EngineCall[object], timeout: float | None, select: Select) -> None:
    deadline = monotonic() + (_LONGEST_S if timeout is None else timeout)
    hub = _spare.pop() if _spare else _core.Hub()
    call.watch(hub, 0)
    try:
        while call.outcome() is None:
            left = deadline - monotonic()
            if left <= 0:
                break
            select(hub.fileno(), left)
            # Also wake-ups of the call that used the hub before.
            hub.drain()
    finally:
        call.unwatch(hub, 0)
    _spare.append(hub)


async def await_call(call: EngineCall[T_co], timeout: float | None) -> T_co:
    """Waits for a call of the engine, without blocking the event loop."""
    await loop_hub.current().wait(call, call.watch, timeout)
    return call.outcome()
