"""The rate limits of a client under an ASGI server; as `src/engine/driver/rate.rs` elsewhere."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from dwebsocket.telemetry import clock

if TYPE_CHECKING:
    from dwebsocket.conf import Options


class _Bucket:
    """A token bucket: holds at most the tokens of one second, and may go below zero."""

    def __init__(self, rate: float, now: float) -> None:
        self.rate = rate
        # At least 1, so that one message always fits.
        self.left = self._most = max(rate, 1.0)
        self._filled_at = now

    def refill(self, now: float) -> None:
        self.left = min(self.left + (now - self._filled_at) * self.rate, self._most)
        self._filled_at = now

    def debt(self) -> float:
        """The seconds until it is above zero again."""
        return 0.0 if self.left > 0 else max(0.001, -self.left / self.rate)


class Meter:
    """One connection's buckets, of messages and of bytes."""

    def __init__(
        self, messages: float | None, size: float | None, timeout: float | None, now: float
    ) -> None:
        """``timeout`` is how long a client may stay over its rate before it is closed."""
        self._messages = None if messages is None else _Bucket(messages, now)
        self._bytes = None if size is None else _Bucket(size, now)
        self._buckets = [each for each in (self._messages, self._bytes) if each is not None]
        self._timeout = math.inf if timeout is None else timeout
        self._over_since: float | None = None

    @classmethod
    def of(cls, options: Options) -> Meter | None:
        """Gives the meter for the settings, ``None`` when they set no limit."""
        rates = options.max_messages_per_second, options.max_bytes_per_second
        if rates == (None, None):
            return None
        return cls(*rates, options.rate_timeout, clock.now())

    def count(self, size: int) -> None:
        """Notes a message of ``size`` bytes."""
        if self._messages is not None:
            self._messages.left -= 1
        if self._bytes is not None:
            self._bytes.left -= size

    def pace(self, now: float) -> float:
        """
        Gives the seconds that the client has to wait, infinity when it is to be closed.

        Then it is asked again: the client may have to wait longer than ``timeout`` allows.
        """
        for bucket in self._buckets:
            bucket.refill(now)
        if all(bucket.left >= bucket.rate / 2 for bucket in self._buckets):
            self._over_since = None
        wait = max(bucket.debt() for bucket in self._buckets)
        if not wait:
            return 0.0
        if self._over_since is None:
            self._over_since = now
        left = self._over_since + self._timeout - now
        return math.inf if left <= 0 else min(wait, left)
