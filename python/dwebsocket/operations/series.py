"""
The traffic of the last minutes: a sample for each slot of time, of this process or of many.

Slots are the same in all processes, so that samples of several can be added.
"""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING

from dwebsocket import _core
from dwebsocket.compat import unpatched
from dwebsocket.operations.snapshot import of_groups
from dwebsocket.telemetry import tally

if TYPE_CHECKING:
    from collections.abc import Iterable

    #: A slot's number, and for each of `FIELDS` its value.
    Sample = list[float]

#: Seconds of a slot.
SLOT_S = 2.0
# Samples are taken so long before the end of their slot, and are there so long after it.
_BEFORE_END_S, _LATE_S = 0.1, 0.4
#: Slots that are kept: five minutes.
KEPT = 150
#: The fields of a sample, after the slot's number. All but the first are counts within the slot.
FIELDS = (
    *("open", "opened", "refused", "closed"),
    *("messages_in", "messages_out", "bytes_in", "bytes_out", "dropped"),
)


class Series:
    """The samples of this process. Any thread may use it."""

    def __init__(self) -> None:
        self._lock = unpatched.lock()
        self._samples: deque[Sample] = deque(maxlen=KEPT)
        self._before = _counters()[1]

    def take(self, slot: int) -> bool:
        """Takes the sample of a slot, which is about to end. False when it is one of zeros."""
        now, total = _counters()
        with self._lock:
            counts = [after - before for after, before in zip(total, self._before, strict=True)]
            self._before = total
            self._samples.append([slot, now, *counts])
        return bool(now or any(counts))

    def since(self, slot: float) -> list[Sample]:
        """Returns the samples of ``slot`` and of those after it."""
        with self._lock:
            return [sample for sample in self._samples if sample[0] >= slot]


def slot_now() -> int:
    """Returns the number of the present slot."""
    return int(time.time() // SLOT_S)


def next_end(after: int) -> tuple[int, float]:
    """Returns the present slot, the next one if that is ``after``, and the seconds to its end."""
    now = time.time()
    slot = int(now // SLOT_S)
    slot += slot == after
    return slot, max(0.0, (slot + 1) * SLOT_S - _BEFORE_END_S - now)


def last_complete() -> int:
    """Returns the last slot of which all processes should have their sample."""
    return int((time.time() - _LATE_S) // SLOT_S) - 1


def total(parts: Iterable[Iterable[Sample]]) -> list[Sample]:
    """Returns the sum of the samples of several processes, in order of their slots."""
    found: dict[float, Sample] = {}
    for part in parts:
        for slot, *values in part:
            known = found.setdefault(slot, [slot, *[0.0] * len(FIELDS)])
            for index, value in enumerate(values, 1):
                known[index] += value
    return [found[slot] for slot in sorted(found)]


def _counters() -> tuple[int, list[int]]:
    """Returns the number of open connections, and the sums of all that is counted."""
    opened, refused, closed = tally.counts()
    is_open, carried, _ = _core.overview()
    dropped = [sum(counts["dropped"].values()) for counts in of_groups().values()]
    return is_open, [
        sum(opened.values()),
        *(sum(sum(names.values()) for names in counts.values()) for counts in (refused, closed)),
        *carried[:4],
        sum(dropped),
    ]
