"""
Counting the members in all processes: a question to all that listen, and their answers.

The server knows which processes listen (``pg_stat_activity``), and forgets one as soon as its
connection is gone, however it died. So the answers are complete when all of these have come.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from dwebsocket.compat.system import monotonic

if TYPE_CHECKING:
    from concurrent.futures import Future

    from dwebsocket.groups.backends.postgres.payload import Answer

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
        future: Of the number of members.
        number: Unguessable; the answers have it.
        asked_at: When it was asked.
        expected: The server's processes after those that have to answer.
        answers: The numbers of members, by these.
    """

    name: str
    future: Future[int]
    number: str = field(default_factory=lambda: secrets.token_hex(8))
    asked_at: float = field(default_factory=monotonic)
    expected: set[int] = field(default_factory=set)
    answers: dict[int, int] = field(default_factory=dict)


class Counts:
    """
    The questions that this process has asked, and their results for a second.

    For the thread that listens; any thread may call :meth:`known`.
    """

    def __init__(self) -> None:
        # The counts whose answers are awaited, by their numbers.
        self._asked: dict[str, Count] = {}
        self._found: dict[str, tuple[float, int]] = {}

    def known(self, name: str) -> int | None:
        """Returns a number that is at most a second old."""
        found = self._found.get(name)
        return found[1] if found and monotonic() - found[0] <= _FRESH_S else None

    def expect(self, count: Count, pids: set[int]) -> None:
        """Notes a question that was asked, and which processes of the server have to answer."""
        self._asked[count.number] = count
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
            left = count.asked_at + timeout - now
            if left <= 0:
                self._finish(count)
            else:
                lefts.append(left)
        return min(lefts, default=None)

    def fail(self, error: Exception) -> None:
        """Ends all questions with an error."""
        failed, self._asked = self._asked, {}
        for count in failed.values():
            count.future.set_exception(error)

    def _settle(self, count: Count) -> None:
        if count.expected and count.expected <= count.answers.keys():
            self._finish(count)

    def _finish(self, count: Count) -> None:
        del self._asked[count.number]
        members = sum(count.answers.values())
        if len(self._found) >= _MANY:
            oldest = monotonic() - _FRESH_S
            self._found = {name: each for name, each in self._found.items() if each[0] > oldest}
        self._found[count.name] = (count.asked_at, members)
        count.future.set_result(members)
