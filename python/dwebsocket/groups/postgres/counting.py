"""
Counting the members in all processes: a question to all that listen, and their answers.

The server knows which processes listen (``pg_stat_activity``), and forgets one as soon as its
connection is gone, however it died. So the answers are complete when all of these have come.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from dwebsocket.compat import unpatched
from dwebsocket.compat.system import monotonic
from dwebsocket.groups.postgres import future

if TYPE_CHECKING:
    from concurrent.futures import Future

    from dwebsocket.groups.postgres.payload import Answer

#: How old a number may be that is given again.
_FRESH_S = 0.9
# From so many on, old numbers are dropped.
_MANY = 1000


@dataclass
class Count:
    """
    One question, asked for the number of members of the group ``name``.

    Attributes:
        name: The group's.
        number: Unguessable; the answers have it.
        future: Of the number of members.
        asked_at: When it was asked; None while it has not been.
        expected: The server's processes after those that have to answer.
        answers: The numbers of members, by these.
    """

    name: str
    number: str = field(default_factory=lambda: secrets.token_hex(8))
    future: Future[int] = field(default_factory=future.new)
    asked_at: float | None = None
    expected: set[int] = field(default_factory=set)
    answers: dict[int, int] = field(default_factory=dict)


class Counts:
    """The questions of this process, and their results for a second. Any thread may use it."""

    def __init__(self) -> None:
        self._lock = unpatched.lock()
        # Not asked yet; then those whose answers are awaited, by their numbers.
        self._new: list[Count] = []
        self._asked: dict[str, Count] = {}
        self._by_name: dict[str, Count] = {}
        self._found: dict[str, tuple[float, int]] = {}

    def known(self, name: str) -> int | None:
        """Returns a number that is at most a second old."""
        found = self._found.get(name)
        return found[1] if found and monotonic() - found[0] <= _FRESH_S else None

    def want(self, name: str) -> Future[int]:
        """Returns the future of a number; those who want the same share one question."""
        with self._lock:
            count = self._by_name.get(name)
            # One that was asked before may be too old when it is answered.
            if count is None or count.asked_at is not None:
                count = self._by_name[name] = Count(name)
                self._new.append(count)
            return count.future

    def take_new(self) -> list[Count]:
        """Takes the questions to ask now."""
        with self._lock:
            new, self._new = self._new, []
            for count in new:
                count.asked_at = monotonic()
                self._asked[count.number] = count
        return new

    def expect(self, count: Count, pids: set[int]) -> None:
        """Notes which processes of the server have to answer."""
        count.expected = pids
        self._settle(count)

    def add(self, answer: Answer) -> None:
        """Takes an answer; those to questions of others, or too late, are ignored."""
        count = self._asked.get(answer.number)
        if count is not None:
            count.answers[answer.pid] = answer.members
            self._settle(count)

    def give_up(self, timeout: float) -> float | None:
        """
        Ends questions that have been open for ``timeout`` seconds with the answers that are here.

        Returns:
            The seconds until the next one is due; None without any.
        """
        now = monotonic()
        lefts = []
        for count in list(self._asked.values()):
            left = (count.asked_at or now) + timeout - now
            if left <= 0:
                self._finish(count)
            else:
                lefts.append(left)
        return min(lefts, default=None)

    def fail(self, error: Exception) -> None:
        """Ends all questions with an error."""
        with self._lock:
            failed = [*self._new, *self._asked.values()]
            self._new = []
            self._asked = {}
            self._by_name = {}
        for count in failed:
            count.future.set_exception(error)

    def _settle(self, count: Count) -> None:
        if count.expected and count.expected <= count.answers.keys():
            self._finish(count)

    def _finish(self, count: Count) -> None:
        members = sum(count.answers.values())
        with self._lock:
            if self._asked.pop(count.number, None) is None:
                return
            if self._by_name.get(count.name) is count:
                del self._by_name[count.name]
            oldest = monotonic() - _FRESH_S
            if len(self._found) >= _MANY:
                self._found = {
                    name: found for name, found in self._found.items() if found[0] > oldest
                }
            self._found[count.name] = (count.asked_at or oldest, members)
        count.future.set_result(members)
