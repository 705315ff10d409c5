"""The places of this process's connections, and the permits by which these are limited."""

from __future__ import annotations

import threading
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dwebsocket.compat.without_engine.hub import Hub

# Entries are added under the lock. Removing one is atomic and takes no lock: the garbage collector
# may do so at any time.
_places: set[_Place] = set()
_lock = threading.Lock()


# Those that wait until no place is taken. Each is taken from here once, without a lock.
_waits: deque[Wait] = deque()


def open_connections() -> int:
    """Returns the number of places that are taken, by connections and handshakes."""
    return len(_places)


def wait_for_none_open() -> Wait | None:
    """Returns a wait until no place is taken; None when none is."""
    if not _places:
        return None
    wait = Wait()
    _waits.append(wait)
    # The last one may have been released since.
    return wait if _places else None


class Wait:
    """A wait until no place is taken. Any thread may use it."""

    def __init__(self) -> None:
        """Begins to wait."""
        self._lock = threading.Lock()
        self._lock.acquire()
        self._is_over = False
        self._watch: tuple[Hub, int] | None = None

    def finish(self) -> None:
        """Wakes all that wait. To be called once; the garbage collector may do so."""
        self._is_over = True
        self._lock.release()
        if self._watch is not None:
            hub, token = self._watch
            hub.announce(token)

    def wait(self, timeout: float | None) -> bool:
        """Sleeps until it is over; false when the time was up."""
        is_over = self._lock.acquire(timeout=-1 if timeout is None else max(0.0, timeout))
        if is_over:
            self._lock.release()
        return is_over

    def watch(self, hub: Hub, token: int) -> None:
        """Puts ``token`` on the hub's list as soon as it is over."""
        self._watch = hub, token
        if self._is_over:
            hub.announce(token)

    def unwatch(self, hub: Hub, token: int) -> None:
        """Takes :meth:`watch` back."""
        self._watch = None

    def outcome(self) -> bool | None:
        """Returns True when it is over; None before."""
        return self._is_over or None


class _Place:
    """A place, taken as long as one of its permits is held."""

    __slots__ = ("holds",)

    def __init__(self) -> None:
        self.holds: set[int] = set()


class Permit:
    """One hold on a place. Dropping it releases it."""

    def __init__(self, place: _Place) -> None:
        """Takes a hold on ``place``."""
        self._place: _Place | None = place
        place.holds.add(id(self))

    @staticmethod
    def claim(limit: int | None) -> Permit | None:
        """Takes a place, or gives None when ``limit`` are taken."""
        with _lock:
            if limit is not None and len(_places) >= limit:
                return None
            permit = Permit(place := _Place())
            _places.add(place)
        return permit

    def share(self) -> Permit:
        """
        Gives another hold on the same place.

        Raises:
            ValueError: It has been released.
        """
        if (place := self._place) is None:
            raise ValueError("this permit has been released")
        return Permit(place)

    def release(self) -> None:
        """Releases the hold. Does nothing when repeated."""
        place, self._place = self._place, None
        if place is not None:
            place.holds.discard(id(self))
            if not place.holds:
                _places.discard(place)
            if not _places:
                with suppress(IndexError):
                    while True:
                        _waits.popleft().finish()

    __del__ = release
