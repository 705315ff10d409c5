"""Reading the tables of the history: by the thread that listens, for all others."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from dwebsocket.compat import unpatched
from dwebsocket.groups.postgres import future

if TYPE_CHECKING:
    from concurrent.futures import Future

    from dwebsocket.groups.history import Log
    from dwebsocket.groups.postgres.history import Reading


@dataclass
class Wanted:
    """
    The wish for one reading.

    Attributes:
        future: Of what is read.
        is_repeated: The connection was lost meanwhile, and it is read once more.
    """

    future: Future[Log] = field(default_factory=future.new)
    is_repeated: bool = False


class Readings:
    """What is to be read. Any thread may use it; those who want the same share one query."""

    def __init__(self) -> None:
        self._lock = unpatched.lock()
        # Not begun yet, and begun.
        self._new: dict[Reading, Wanted] = {}
        self._begun: dict[Reading, Wanted] = {}

    @property
    def is_wanted(self) -> bool:
        """Whether something waits to be read."""
        return bool(self._new)

    def want(self, reading: Reading) -> Future[Log]:
        """Returns the future of what is read after this call."""
        with self._lock:
            return self._new.setdefault(reading, Wanted()).future

    def take_new(self) -> dict[Reading, Wanted]:
        """Takes what is to be read now."""
        with self._lock:
            self._begun, self._new = self._new, {}
        return self._begun

    def put_back(self, error: Exception) -> None:
        """Lets what was not read be read by another connection; the second time it is an error."""
        with self._lock:
            begun, self._begun = self._begun, {}
            left = {reading: each for reading, each in begun.items() if not each.future.done()}
            # One of them may be the reason that the connection was lost.
            failed = [each for each in left.values() if each.is_repeated]
            again = {reading: each for reading, each in left.items() if not each.is_repeated}
            failed += [each for reading, each in again.items() if reading in self._new]
            for each in again.values():
                each.is_repeated = True
            self._new = {**again, **self._new}
        for each in failed:
            each.future.set_exception(error)

    def fail(self, error: Exception) -> None:
        """Ends all of them with an error."""
        with self._lock:
            failed = [*self._begun.values(), *self._new.values()]
            self._new, self._begun = {}, {}
        for each in failed:
            if not each.future.done():
                each.future.set_exception(error)
