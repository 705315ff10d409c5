"""The places of this process's connections, and the permits by which these are limited."""

from __future__ import annotations

import threading

# Entries are added under the lock. Removing one is atomic and takes no lock: the garbage collector
# may do so at any time.
_places: set[_Place] = set()
_lock = threading.Lock()


def open_connections() -> int:
    """Gives the number of places that are taken, by connections and handshakes."""
    return len(_places)


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

    __del__ = release
