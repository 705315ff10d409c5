"""How often a connection may do something."""

from __future__ import annotations

from dwebsocket.telemetry import clock


class Bucket:
    """
    Permits, of which so many come a second, and so many are kept.

    Attributes:
        rate: Permits a second.
        most: The permits that are kept.
    """

    __slots__ = ("_at", "_left", "most", "rate")

    def __init__(self, rate: float, most: float) -> None:
        """Makes a full one."""
        self.rate = rate
        self.most = most
        self._left = most
        self._at = clock.now()

    def take(self) -> bool:
        """Takes a permit, if there is one."""
        now = clock.now()
        self._left = min(self.most, self._left + (now - self._at) * self.rate)
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True

    @property
    def due(self) -> float:
        """The time of the next permit, when :meth:`take` has found none."""
        return self._at + (1 - self._left) / self.rate
