"""How long things took: counts in buckets, as Prometheus has them."""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING, TypedDict

from dwebsocket.compat import unpatched
from dwebsocket.compat.system import renew_at_fork

if TYPE_CHECKING:
    from collections.abc import Iterable

#: Upper bounds in seconds; the last bucket has none.
BOUNDS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
#: The names of the buckets, as in Prometheus.
BUCKETS = (*map(str, BOUNDS), "+Inf")


class Durations(TypedDict):
    """How many there are, the sum of them, and the number in each bucket."""

    count: int
    seconds: float
    buckets: dict[str, int]


def summary(found: Iterable[float]) -> Durations:
    """Returns the buckets of durations in seconds."""
    histogram = Histogram()
    for seconds in found:
        histogram.add(seconds)
    return histogram.durations()


class Histogram:
    """Durations that are counted as they come. Any thread may use it."""

    def __init__(self) -> None:
        self._lock = unpatched.lock()
        self._counts = [0] * len(BUCKETS)
        self._seconds = 0.0

    def add(self, seconds: float) -> None:
        """Counts one. Never waits."""
        place = bisect_left(BOUNDS, seconds)
        with self._lock:
            self._counts[place] += 1
            self._seconds += seconds

    def durations(self) -> Durations:
        """Returns the counts."""
        with self._lock:
            counts, seconds = list(self._counts), self._seconds
        buckets = dict(zip(BUCKETS, counts, strict=True))
        return {"count": sum(counts), "seconds": seconds, "buckets": buckets}


#: The durations of the methods of handlers, in this process.
of_handlers = Histogram()

renew_at_fork(globals(), of_handlers=Histogram)
