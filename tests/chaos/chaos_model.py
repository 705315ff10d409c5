"""
What clients may see of groups that they come back to, and whether they have seen it.

A client sees each message of its groups once and in order, from the position on that it was told
first; or it is told that something may be missing, and begins anew at the position that it is told
then.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

#: An entry of a client's log, as crowd.mjs writes it.
Fact = list
#: Group, text, and whether the call has returned.
Attempt = tuple[str, str, bool]
Position = tuple[str, int]


class Broken(AssertionError):
    """A client or a publisher was promised something else."""


def read_position(text: str) -> Position:
    """Split a position into its epoch and its offset."""
    epoch, _, offset = text.rpartition("-")
    return epoch, int(offset)


@dataclass
class Account:
    """
    What all clients have seen.

    Attributes:
        texts: The messages, by group and epoch, and then by offset.
        messages: How many were delivered.
        recovered: How often a client came back and had missed something, and got it.
        unharmed: How often one came back that had missed nothing.
        lost: How often a client was told that something may be missing.
        clients: How many recovered at least once.
    """

    texts: dict[tuple[str, str], dict[int, str]] = field(default_factory=lambda: defaultdict(dict))
    messages: int = 0
    recovered: int = 0
    unharmed: int = 0
    lost: int = 0
    clients: int = 0

    def take(self, log: Iterable[Fact], *, may_lose: bool) -> None:
        """
        Go through a client's log.

        Args:
            log: What it has seen.
            may_lose: Whether numbering may start anew. It may not be told else that something is
                missing.

        Raises:
            Broken: It has seen something else than it may.
        """
        at: dict[str, Position] = {}
        anywhere: set[str] = set()
        recovered = 0
        for fact in log:
            if fact[0] == "m":
                _, group, position, text = fact
                if group in anywhere:
                    anywhere.discard(group)
                    epoch, offset = read_position(position)
                    at[group] = epoch, offset - 1
                self._take_message(at, group, read_position(position), text)
            elif fact[0] == "r":
                _, group, position, is_recovered, missed = fact
                before = at.get(group)
                if position is None:
                    # In an open room: the next message says where it is.
                    if not may_lose:
                        raise Broken(f"{group}: has lost what came after {before}")
                    self.lost += 1
                    anywhere.add(group)
                    continue
                anywhere.discard(group)
                told = read_position(position)
                if before is None:
                    if not is_recovered or missed:
                        raise Broken(f"{group}: a new client was told {fact}")
                elif is_recovered:
                    if told != before:
                        raise Broken(f"{group}: was at {before} and is told {told}")
                    recovered += 1
                    self.recovered += bool(missed)
                    self.unharmed += not missed
                else:
                    if not may_lose or told[0] == before[0]:
                        raise Broken(f"{group}: has lost what came behind {before}, told {told}")
                    self.lost += 1
                at[group] = told
        self.clients += bool(recovered)

    def _take_message(
        self, at: dict[str, Position], group: str, position: Position, text: str
    ) -> None:
        epoch, offset = position
        before = at.get(group)
        if before is None:
            raise Broken(f"{group}: {position} before the first position was told")
        if (epoch, offset) != (before[0], before[1] + 1):
            raise Broken(f"{group}: {position} ({text}) behind {before}")
        known = self.texts[group, epoch].setdefault(offset, text)
        if known != text:
            raise Broken(f"{group}: {position} is {known} for one client, {text} for another")
        at[group] = position
        self.messages += 1

    def compare(self, attempts: Iterable[Attempt], *, may_lose: bool) -> None:
        """
        Compare with what one publisher has published.

        Of the attempts that have returned none is missing, and all are in order. One that has
        raised may have arrived, once. When numbering starts anew, the last ones before may be lost.

        Raises:
            Broken: Something is missing, doubled or in another order.
        """
        returned: dict[str, list[str]] = defaultdict(list)
        made = set()
        for group, text, has_returned in attempts:
            made.add(text)
            if has_returned:
                returned[group].append(text)
        for group, expected in returned.items():
            seen = Counter[str]()
            begin = 0
            for (name, _), texts in self.texts.items():
                if name != group:
                    continue
                order = [texts[offset] for offset in sorted(texts)]
                seen.update(text for text in order if text in made)
                known = set(expected)
                own = [text for text in order if text in known]
                if not own:
                    continue
                begin = expected.index(own[0])
                if own != expected[begin : begin + len(own)]:
                    raise Broken(f"{group}: {_first_difference(own, expected[begin:])}")
            if twice := [text for text, count in seen.items() if count > 1]:
                raise Broken(f"{group}: came twice: {twice[:5]}")
            if not may_lose and (missing := [text for text in expected if text not in seen]):
                raise Broken(f"{group}: never came: {missing[:5]}")


def _first_difference(own: list[str], expected: list[str]) -> str:
    for found, wanted in zip(own, expected, strict=False):
        if found != wanted:
            return f"{found} came where {wanted} was due"
    return f"{own[len(expected)]} came although all were there"
