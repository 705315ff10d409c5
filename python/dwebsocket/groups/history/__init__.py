"""The history of a group: what is kept, and where a member comes back to."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from dwebsocket.exceptions import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dwebsocket.conf.group_settings import BackendSettings, HistoryLimits

    #: Epoch and offset.
    Position = tuple[int, int]
    #: Offset, milliseconds since 1970, message, and the keys of the members that did not get it.
    Row = tuple[int, int, str | bytes, list[bytes]]
    #: Offset, milliseconds since 1970, and envelope.
    LogRow = tuple[int, int, bytes]

_POSITION = re.compile(r"([0-9a-f]{16})-(0|[1-9][0-9]{0,18})", re.ASCII)
_LARGEST_OFFSET = 2**63


@dataclass(frozen=True)
class Entry:
    """
    A message that is kept.

    Attributes:
        offset: Its number in the group, from 1 on.
        epoch: The numbering to which that belongs.
        message: ``str`` for text, ``bytes`` for binary.
        sent_at: When it was published, an aware datetime.
    """

    offset: int
    epoch: str
    message: str | bytes
    sent_at: datetime

    @property
    def position(self) -> str:
        """The position of a client that has seen it, as ``join(…, since=…)`` takes it."""
        return f"{self.epoch}-{self.offset}"


class History(list[Entry]):
    """
    The kept messages of a group, oldest first: a list of entries that knows where it ends.

    Attributes:
        position: The position of a client that has seen it, also when the list is empty. A page
            that shows the list joins from there: nothing is missed, nothing comes twice.
    """

    __slots__ = ("position",)

    position: str

    def __init__(self, entries: Iterable[Entry], position: str) -> None:
        """
        Notes the position.

        Args:
            entries: The list's.
            position: Where they were read to.
        """
        super().__init__(entries)
        self.position = position


@dataclass(frozen=True)
class Recovery:
    """
    The outcome for a client that came back.

    Attributes:
        recovered: Whether it has now got everything since its position.
        missed: The number of messages that it was sent.
        position: Where it is now.
    """

    recovered: bool
    missed: int
    position: str


@dataclass(frozen=True)
class Log:
    """
    A part of what a backend keeps of a group.

    Attributes:
        head: The position of the newest message that was ever published: its epoch and its offset.
        rows: Messages, oldest first, without gaps: offset, milliseconds since 1970, envelope.
            The newest ones may be left for another call.
    """

    head: Position
    rows: list[LogRow]

    @property
    def reached(self) -> Position:
        """The position of those that have got it."""
        return (self.head[0], self.rows[-1][0]) if self.rows else self.head


@dataclass(frozen=True)
class Page:
    """
    Messages of one group.

    Attributes:
        head: The position of the newest one that was ever published.
        rows: The kept messages, oldest first, without gaps.
        reached: The position of those that have got them: the newest ones may be on another page.
    """

    head: Position
    rows: list[Row]
    reached: Position

    @property
    def is_last(self) -> bool:
        """Whether there was nothing after it when it was read."""
        return self.reached == self.head

    @property
    def size(self) -> int:
        """Characters and bytes of the messages."""
        return sum(len(message) for _, _, message, _ in self.rows)

    def __add__(self, other: Page) -> Page:
        """Returns both, when ``other`` was read after this one; that one alone of another epoch."""
        if self.head[0] != other.head[0]:
            return other
        head = max(self.head, other.reached)
        return Page(head, self.rows + other.rows, max(self.reached, other.reached))


def text_of(position: Position) -> str:
    """Returns a position as clients have it."""
    epoch, offset = position
    return f"{epoch:016x}-{offset}"


def read_position(text: object) -> Position | None:
    """
    Returns a position that a client has sent; None for anything that is none.

    Raises:
        TypeError: It is no ``str``.
    """
    if not isinstance(text, str):
        raise TypeError(f"a position is a str such as '…-42', not {type(text).__name__}")
    found = _POSITION.fullmatch(text)
    if found is None or (offset := int(found[2])) >= _LARGEST_OFFSET:
        return None
    return int(found[1], 16), offset


def needs(settings: BackendSettings, name: str, what: str) -> HistoryLimits:
    """
    Returns how much of a group is kept.

    Raises:
        UsageError: The group has no history.
    """
    if (kept := settings.kept(name)) is None:
        raise UsageError(
            f"{what} needs a history, and the group {name!r} has none: "
            "name it in HISTORY of WEBSOCKET_GROUPS"
        )
    return kept


def is_whole(page: Page, since: Position) -> bool:
    """Whether ``page``, which was read after ``since``, has everything from there on."""
    epoch, last = page.head
    if since[0] != epoch or since[1] > last:
        return False
    return since[1] == last or bool(page.rows and page.rows[0][0] == since[1] + 1)


def entries(page: Page, most: int) -> History:
    """Returns the newest messages of a page that is the last one."""
    epoch = f"{page.head[0]:016x}"
    newest = (
        Entry(offset, epoch, message, datetime.fromtimestamp(ms / 1000, timezone.utc))
        for offset, ms, message, _ in page.rows[max(0, len(page.rows) - most) :]
    )
    return History(newest, text_of(page.reached))


def checked_limit(limit: Any) -> int | None:
    """
    Returns the number of messages that ``history`` is to give; None for all.

    Raises:
        TypeError: It is no int.
        ValueError: It is negative.
    """
    if limit is None:
        return None
    if isinstance(limit, bool) or not isinstance(limit, int):
        raise TypeError(f"limit must be an int, not {type(limit).__name__}")
    if limit < 0:
        raise ValueError(f"limit must be 0 or more, not {limit}")
    return limit
