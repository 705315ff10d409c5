"""The channels and groups of one process, in memory. Knows of no other process."""

from __future__ import annotations

import asyncio
import enum
from typing import TYPE_CHECKING, NamedTuple

from dwebsocket.api.waiting.loop_hub import settle_later
from dwebsocket.channels.channel import EXPIRED, FULL, Channel, Drops, wake
from dwebsocket.compat import unpatched
from dwebsocket.compat.asyncio import running_loop
from dwebsocket.telemetry import clock

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from dwebsocket.channels.channel import Entry, Sleeper

# So often a task that waits for a normal channel asks again: a word to others may be lost.
_ASK_AGAIN_S = 5.0
# Unused channels and groups are looked for at most once in this time.
_TIDY_EVERY_S = 30.0


class Put(enum.Enum):
    """The outcome of a message."""

    FULL = enum.auto()
    #: A task was woken for it.
    TAKEN = enum.auto()
    #: It waits for a task.
    WAITS = enum.auto()


class Delivery(NamedTuple):
    """The outcome of a group's message."""

    #: The normal channels where no task waits: another process may receive there.
    untaken: list[str]
    #: Whether a channel fills up: its task should have turns.
    is_behind: bool


class Store:
    """
    The channels and groups. Any thread and any event loop may use it; only :meth:`receive` waits.

    Args:
        expiry: The seconds that a message may wait.
        group_expiry: The seconds for which a channel stays in a group.
        capacity: Returns how many messages may wait in the channel of a name.
    """

    def __init__(self, expiry: float, group_expiry: float, capacity: Callable[[str], int]) -> None:
        self.expiry = expiry
        self._group_expiry = group_expiry
        self._capacity = capacity
        self._lock = unpatched.lock()
        self._channels: dict[str, Channel] = {}
        # The channels of each group by the time at which they were added last, the oldest first.
        self._groups: dict[str, dict[Channel, float]] = {}
        self._tidy_at = 0.0

    # -- channels --------------------------------------------------------------------------------

    def put(
        self, name: str, message: bytes, seconds: float | None = None, *, is_moved: bool = False
    ) -> Put:
        """
        Puts a message into a channel.

        Args:
            seconds: The time after which it expires, by default as :attr:`expiry` says.
            is_moved: It comes from another process, which had room for it: so there is room here.
        """
        now = clock.now()
        here = running_loop()
        entry = (now + (self.expiry if seconds is None else seconds), message)
        drops = Drops()
        with self._lock:
            channel = self._open(name, now)
            drops.add(EXPIRED, channel, channel.drop_expired(now))
            is_full = channel.is_full() and not is_moved
            sleeper = None
            if not is_full:
                channel.entries.append(entry)
                sleeper = channel.next_sleeper(here)
        drops.report()
        if is_full:
            return Put.FULL
        if sleeper is None:
            return Put.WAITS
        wake([sleeper], here)
        return Put.TAKEN

    def drop(self, name: str) -> None:
        """Notes that a message for a channel was dropped, because that is full."""
        drops = Drops()
        with self._lock:
            drops.add(FULL, self._open(name, clock.now()))
        drops.report()

    def is_full(self, name: str) -> bool:
        """Whether a channel has no room now."""
        drops = Drops()
        with self._lock:
            if (channel := self._channels.get(name)) is None:
                return False
            drops.add(EXPIRED, channel, channel.drop_expired(clock.now()))
            is_full = channel.is_full()
        drops.report()
        return is_full

    def take(self, name: str, most: int = 1) -> list[Entry]:
        """Takes the oldest messages out of a channel, for another process."""
        now = clock.now()
        drops = Drops()
        with self._lock:
            if (channel := self._channels.get(name)) is None:
                return []
            drops.add(EXPIRED, channel, channel.drop_expired(now))
            count = min(most, len(channel.entries))
            taken = [channel.entries.popleft() for _ in range(count)]
        drops.report()
        return taken

    def wants(self, name: str) -> bool:
        """Whether tasks wait for a message of a channel."""
        with self._lock:
            channel = self._channels.get(name)
            if channel is None or channel.entries:
                return False
            return any(not sleeper.done() for sleeper in channel.sleepers)

    def is_read(self, name: str) -> bool:
        """Whether this process receives from a channel."""
        with self._lock:
            return (channel := self._channels.get(name)) is not None and channel.is_read

    def held(self) -> dict[str, int]:
        """Returns the normal channels with messages that wait, and how many these are."""
        with self._lock:
            return {
                channel.name: len(channel.entries)
                for channel in self._channels.values()
                if channel.is_normal and channel.entries
            }

    async def receive(self, name: str, ask: Callable[[], Awaitable[object]] | None = None) -> bytes:
        """
        Takes the next message of a channel, waiting for it if need be.

        Several tasks may wait for one channel: each message goes to one of them, the one that has
        waited longest first. Cancelling a task loses no message.

        Args:
            ask: Called whenever there is none, and again after a while, to look for one elsewhere.
        """
        while True:
            now = clock.now()
            drops = None
            with self._lock:
                channel = self._open(name, now)
                channel.is_read = True
                # Asked first, and without a call: this runs for each delivery.
                if channel.entries and channel.entries[0][0] <= now:
                    drops = Drops()
                    drops.add(EXPIRED, channel, channel.drop_expired(now))
                if channel.entries:
                    message = channel.entries.popleft()[1]
                else:
                    message = None
                    sleeper = asyncio.get_running_loop().create_future()
                    channel.sleepers.append(sleeper)
            if drops is not None:
                drops.report()
            if message is not None:
                return message
            stop_timer = None
            try:
                if ask is not None:
                    await ask()
                    stop_timer = settle_later(sleeper, _ASK_AGAIN_S)
                await sleeper
            except BaseException:
                self._give_up(channel, sleeper)
                raise
            finally:
                if stop_timer is not None:
                    stop_timer()
            if ask is not None:
                self._forget(channel, sleeper)

    def _forget(self, channel: Channel, sleeper: Sleeper) -> bool:
        """Forgets a task that sleeps no more; true when no message has woken it."""
        with self._lock:
            is_there = sleeper in channel.sleepers
            if is_there:
                channel.sleepers.remove(sleeper)
        return is_there

    def _give_up(self, channel: Channel, sleeper: Sleeper) -> None:
        """Wakes another task in place of one that was woken, and takes no message."""
        if self._forget(channel, sleeper):
            return
        here = running_loop()
        with self._lock:
            other = channel.next_sleeper(here) if channel.entries else None
        if other is not None:
            wake([other], here)

    def _open(self, name: str, now: float) -> Channel:
        channel = self._channels.get(name)
        if channel is None:
            channel = self._channels[name] = Channel(name, self._capacity(name))
        channel.used = now
        return channel

    # -- groups ----------------------------------------------------------------------------------

    def join(self, group: str, name: str) -> None:
        """Adds a channel to a group, or renews its place there."""
        now = clock.now()
        with self._lock:
            channel = self._open(name, now)
            members = self._groups.setdefault(group, {})
            if members.pop(channel, None) is None:
                channel.groups = (*channel.groups, group)
            members[channel] = now

    def leave(self, group: str, name: str) -> None:
        """Takes a channel out of a group, if it is there."""
        with self._lock:
            members, channel = self._groups.get(group), self._channels.get(name)
            if members and channel is not None and members.pop(channel, None) is not None:
                channel.leave(group)
            if members is not None and not members:
                del self._groups[group]

    def has_members(self, group: str) -> bool:
        """Whether a group has channels here."""
        with self._lock:
            return group in self._groups

    def deliver(self, group: str, message: bytes) -> Delivery | None:
        """Puts a message into all channels of a group that are not full; None if it has none."""
        now = clock.now()
        here = running_loop()
        entry = (now + self.expiry, message)
        drops = Drops()
        sleepers = []
        untaken = []
        is_behind = False
        with self._lock:
            members = self._groups.get(group)
            if members is None:
                return None
            self._end_old_memberships(group, now)
            for channel in members:
                if channel.is_full():
                    drops.add(EXPIRED, channel, channel.drop_expired(now))
                    if channel.is_full():
                        drops.add(FULL, channel)
                        continue
                channel.entries.append(entry)
                if 2 * len(channel.entries) > channel.capacity and channel.is_read:
                    is_behind = True
                if channel.sleepers and (sleeper := channel.next_sleeper(here)) is not None:
                    sleepers.append(sleeper)
                elif channel.is_normal:
                    untaken.append(channel.name)
        wake(sleepers, here)
        drops.report()
        return Delivery(untaken, is_behind)

    def end(self, name: str) -> list[str]:
        """Forgets a channel, and what waits in it; returns the groups that have ended with it."""
        ended = []
        with self._lock:
            channel = self._channels.pop(name, None)
            if channel is None:
                return []
            for group in channel.groups:
                members = self._groups[group]
                del members[channel]
                if not members:
                    del self._groups[group]
                    ended.append(group)
        return ended

    def _end_old_memberships(self, group: str, now: float) -> None:
        members, limit = self._groups[group], now - self._group_expiry
        while members:
            channel = next(iter(members))
            if members[channel] > limit:
                break
            del members[channel]
            channel.leave(group)

    # -- all of it -------------------------------------------------------------------------------

    def clear(self) -> None:
        """Empties all channels and all groups. Tasks go on waiting."""
        with self._lock:
            self._groups.clear()
            for name, channel in list(self._channels.items()):
                channel.entries.clear()
                channel.groups = ()
                if not channel.sleepers:
                    del self._channels[name]

    def tidy(self) -> tuple[list[str], list[str]] | None:
        """
        Forgets unused channels and groups, now and then.

        Returns the groups that have ended, and the normal channels that were forgotten; None while
        it is too early to look.
        """
        now = clock.now()
        if now < self._tidy_at:
            return None
        drops = Drops()
        with self._lock:
            self._tidy_at = now + min(self.expiry, _TIDY_EVERY_S)
            for group in self._groups:
                self._end_old_memberships(group, now)
            groups = [name for name, members in self._groups.items() if not members]
            for name in groups:
                del self._groups[name]
            for channel in self._channels.values():
                drops.add(EXPIRED, channel, channel.drop_expired(now))
            idle = [each for each in self._channels.values() if each.is_idle(now - self.expiry)]
            for channel in idle:
                del self._channels[channel.name]
        drops.report()
        return groups, [channel.name for channel in idle if channel.is_normal]

    def knows(self, name: str) -> bool:
        """Whether a channel is in use."""
        # One step for the interpreter, and so without the lock.
        return name in self._channels
