"""One channel in one process: messages that wait, tasks that wait for one, dropped messages."""

from __future__ import annotations

import logging
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from dwebsocket.api.waiting.loop_hub import settle
from dwebsocket.telemetry import records

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterable

    Sleeper = asyncio.Future[None]
    #: The time at which it expires, and the message.
    Entry = tuple[float, bytes]

FULL = "channel.full"
EXPIRED = "channel.expired"

_log = logging.getLogger("dwebsocket")
_TEXTS = {
    FULL: "Channel %r is full: %d messages wait there, more are dropped until they are received",
    EXPIRED: "Channel %r drops messages that were not received in time; its capacity is %d",
}


@dataclass(eq=False, repr=False, slots=True)
class Channel:
    """
    A bounded queue. For the holder of its store's lock.

    Attributes:
        name: Its name.
        capacity: How many messages may wait.
        is_read: Whether this process receives from it.
        groups: The groups it is in: mostly none or one, so a set would take more.
        used: When it was last used.
        reported: The events that were logged: each is logged once.
    """

    name: str
    capacity: int
    entries: deque[Entry] = field(default_factory=deque)
    sleepers: deque[Sleeper] = field(default_factory=deque)
    is_read: bool = False
    groups: tuple[str, ...] = ()
    used: float = 0.0
    reported: set[str] = field(default_factory=set)

    @property
    def is_normal(self) -> bool:
        """Whether any process may receive from it."""
        return "!" not in self.name

    def leave(self, group: str) -> None:
        """Notes that it has left a group."""
        self.groups = tuple(each for each in self.groups if each != group)

    def is_full(self) -> bool:
        """Whether no more messages may wait."""
        return len(self.entries) >= self.capacity

    def drop_expired(self, now: float) -> int:
        """Drops what has expired; returns how many messages that were."""
        before = len(self.entries)
        while self.entries and self.entries[0][0] <= now:
            self.entries.popleft()
        return before - len(self.entries)

    def next_sleeper(self, here: asyncio.AbstractEventLoop | None) -> Sleeper | None:
        """Returns the task that has waited longest, and forgets it. ``here``: the running loop."""
        while self.sleepers:
            sleeper = self.sleepers.popleft()
            if sleeper.done():
                continue
            loop = sleeper.get_loop()
            # A task that was left behind by its loop wakes no more.
            if loop is here or not loop.is_closed():
                return sleeper
        return None

    def is_idle(self, since: float) -> bool:
        """Whether nothing would be missed without it."""
        return not (self.entries or self.sleepers or self.groups) and self.used <= since


def wake(sleepers: Iterable[Sleeper], here: asyncio.AbstractEventLoop | None) -> None:
    """Wakes tasks, each on its loop. Any thread may call it. ``here``: the running loop."""
    elsewhere: dict[asyncio.AbstractEventLoop, list[Sleeper]] = {}
    for sleeper in sleepers:
        loop = sleeper.get_loop()
        if loop is here:
            settle(sleeper)
        else:
            elsewhere.setdefault(loop, []).append(sleeper)
    for loop, those in elsewhere.items():
        # A loop that was closed meanwhile has no task left.
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(_settle_all, those)


def _settle_all(sleepers: list[Sleeper]) -> None:
    for sleeper in sleepers:
        settle(sleeper)


class Drops:
    """Messages that were dropped, to be reported once no lock is held any more."""

    def __init__(self) -> None:
        self._found: list[tuple[str, Channel, int]] = []

    def add(self, event: str, channel: Channel, count: int = 1) -> None:
        """Adds messages of a channel; none are ignored."""
        if count:
            self._found.append((event, channel, count))

    def report(self) -> None:
        """Counts them all, and logs what is new."""
        for event, channel, count in self._found:
            records.count(event, count)
            if event not in channel.reported:
                channel.reported.add(event)
                extra = {"event": event}
                _log.warning(_TEXTS[event], channel.name, channel.capacity, extra=extra)
