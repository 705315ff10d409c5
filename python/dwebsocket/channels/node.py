"""
This process as one of those that share channels: its store, and what it and the others tell.

A channel whose name has an ``!`` belongs to the process that made it: what is sent to it goes to
that process's *inbox*, a group of the backend with one member.

A group is a group of the backend, in which each process with channels of it is once. A message goes
to the other processes by the backend, and straight into the channels of this one.

A normal channel belongs to no process. A message waits in the process that has sent it, until a
process that receives fetches it: in a group of the backend, the channel's *meeting*, a sender says
``have`` when there is something, and a receiver ``want`` when it waits. To each ``want`` a process
answers with one message, which it ``give``\\ s away: so each one reaches one receiver at most, and
the order is that of the sender. A process that ``ends`` gives all that it has.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import logging
import secrets
import threading
import time
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from asgiref.sync import sync_to_async
from django.db import close_old_connections, connections

from dwebsocket.api.waiting.loop_hub import LoopEvent
from dwebsocket.channels import names
from dwebsocket.channels.membership import Memberships
from dwebsocket.channels.store import Put, Store
from dwebsocket.compat.channels import ChannelFull
from dwebsocket.compat.msgpack import pack, unpack
from dwebsocket.compat.system import at_fork, monotonic
from dwebsocket.exceptions import GroupUnavailable
from dwebsocket.groups.arrivals import Arrivals, Subscription
from dwebsocket.groups.backends import contract
from dwebsocket.groups.members import key_of
from dwebsocket.telemetry import clock

if TYPE_CHECKING:
    from collections.abc import Callable

    from dwebsocket.groups.backends.contract import Backend

_log = logging.getLogger("dwebsocket")

# By what messages for WebSockets exclude all processes with channels, which have got them already.
_ALL_KEY = key_of(names.EVERYONE)
# As many messages as there are.
_ALL = 2**31
# A sender to a group yields so often to its loop, if a channel there fills up. A consumer needs
# several turns for a message.
_TURNS = 8
# The words that would change something each time that another user of the server sends them again.
_CHANGES = ("add", "discard", "elsewhere", "flush")
# So often a task looks whether all processes have answered.
_LOOK_S = 0.05
# A process that is asked and does not answer for so long may be gone.
_MAY_BE_GONE_S = 0.75
# Processes that are gone, as far as is remembered.
_MOST_GONE = 1000
# A process that ends waits so long for others to take over what it still has.
_FAREWELL_S = 1.0


class Node:
    """
    One layer in one process. Any thread and any event loop may use it.

    Methods that others call raise what those of :class:`~dwebsocket.channels.ChannelLayer` do.

    Args:
        backend: Carries messages to other processes.
        store: What is here.
        is_bridge: Whether groups are also those of ``dwebsocket.group()``.
    """

    def __init__(self, backend: Backend, store: Store, *, is_bridge: bool) -> None:
        self.id = secrets.token_hex(8)
        self.backend = backend
        self.store = store
        self._is_bridge = is_bridge
        self._key = key_of(self.id)
        self._arrivals = Arrivals("channels")
        self._is_up = False
        # Whether messages are on their way from the store to another process.
        self._is_giving = False
        # Set when messages have left the store, as this process ends.
        self._given: threading.Event | None = None
        # Its inbox, and the group of all.
        self._own = Memberships(lambda name: [self._subscription(name)], lambda _: True)
        self._groups = Memberships(self._group_subscriptions, store.has_members)
        self._meetings = Memberships(
            lambda channel: [self._subscription(names.meeting(channel))], store.knows
        )
        self._numbers = itertools.count(1)
        # The answers that others have given, by the numbers of the questions.
        self._answers: dict[int, _Answers] = {}
        # Others that did not answer, and were members of nothing any more.
        self._gone: set[str] = set()
        # With the types of their arguments.
        self._words: dict[str, tuple[Callable[..., None], list[type]]] = {
            "send": (self._on_send, [str, bytes]),
            "have": (self._on_have, [str, str]),
            "ends": (self._on_ends, [str, str]),
            "want": (self._on_want, [str, str, int]),
            "give": (self._on_give, [str, float, bytes]),
            "add": (self._on_add, [str, str, str, int]),
            "discard": (self._on_discard, [str, str, str, int]),
            "elsewhere": (self._leave, [str, str]),
            "flush": (self._on_flush, [str, int]),
            "done": (self._on_done, [int]),
        }

    # -- life ------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Lets other processes reach this one."""
        if self._is_up:
            return
        for name in (names.inbox(self.id), names.EVERYONE):
            async with self._own.aheld(name):
                pass
        self._is_up = True
        _nodes.add(self)
        _register_at_exit()

    def stop(self) -> None:
        """Leaves the backend for good. Never waits."""
        for memberships in (self._groups, self._meetings, self._own):
            memberships.end_all()
        self._arrivals.close()
        _nodes.discard(self)

    def _subscription(self, name: str) -> Subscription:
        return Subscription(self._arrivals, self.backend, name, self._key, self._take)

    def _group_subscriptions(self, group: str) -> list[Subscription]:
        ways = [(names.group(group), self._key, lambda it: self._on_group(group, it))]
        if self._is_bridge:
            ways += [(group, _ALL_KEY, lambda it: self._on_group(group, _event_of(it)))]
        return [Subscription(self._arrivals, self.backend, *way) for way in ways]

    # -- channels --------------------------------------------------------------------------------

    async def send(self, channel: str, message: bytes) -> None:
        """Sends a message to a channel."""
        owner = names.node_of(channel)
        if owner is None:
            await self._send_normal(channel, message)
        elif owner != self.id:
            frame = _packed("send", channel, message)
            await self.backend.asend(names.inbox(owner), frame, [self._key])
        elif await self.backend.awaits_commit():
            await self._send_to_itself(channel, message)
        elif self.store.put(channel, message) is Put.FULL:
            raise ChannelFull(channel)
        else:
            await asyncio.sleep(0)
        self._tidy()

    async def _send_normal(self, channel: str, message: bytes) -> None:
        await self.start()
        if await self.backend.awaits_commit():
            await self._send_to_itself(channel, message)
            return
        async with self._meetings.aheld(channel):
            outcome = self.store.put(channel, message)
            if outcome is Put.FULL:
                raise ChannelFull(channel)
            if outcome is Put.WAITS:
                await self._aoffer(channel)

    async def _send_to_itself(self, channel: str, message: bytes) -> None:
        """Sends it as another process would, so that it comes with the transaction's commit."""
        if self.store.is_full(channel):
            raise ChannelFull(channel)
        await self.start()
        await self.backend.asend(names.inbox(self.id), _packed("send", channel, message), [])

    def is_own(self, channel: str) -> bool:
        """Whether this is a channel of this process that is in use."""
        return self._is_up and self.store.knows(channel) and "!" in channel

    async def receive_normal(self, channel: str) -> bytes:
        """Takes the next message of a normal channel, from whichever process has one."""

        async def ask() -> None:
            await self._post(names.meeting(channel), "want", channel, self.id, 1)

        try:
            async with self._meetings.aheld(channel):
                return await self.store.receive(channel, ask)
        finally:
            self._note_given()

    def _note_given(self) -> None:
        if self._given is not None:
            self._given.set()

    def _on_send(self, channel: str, message: bytes) -> None:
        outcome = self.store.put(channel, message)
        if outcome is Put.FULL:
            self.store.drop(channel)
        elif outcome is Put.WAITS and names.node_of(channel) is None:
            self._offer(channel)

    def _on_have(self, channel: str, owner: str) -> None:
        if self.store.wants(channel):
            self._reply(names.inbox(owner), "want", channel, self.id, 1)

    def _on_ends(self, channel: str, owner: str) -> None:
        # Its messages can wait here, where they are received soon.
        if self.store.is_read(channel):
            self._reply(names.inbox(owner), "want", channel, self.id, _ALL)

    def _on_want(self, channel: str, node: str, most: int) -> None:
        now = clock.now()
        self._is_giving = True
        try:
            for expires, message in self.store.take(channel, most):
                # The clocks of machines differ, the time that is left does not.
                self._reply(names.inbox(node), "give", channel, expires - now, message)
        finally:
            self._is_giving = False
            self._note_given()

    def _on_give(self, channel: str, seconds: float, message: bytes) -> None:
        if self.store.put(channel, message, seconds, is_moved=True) is Put.WAITS:
            self._offer(channel)

    def _offer(self, channel: str) -> None:
        """Lets other processes know of a message for which no task waits here."""
        with self._meetings.held(channel):
            self._reply(names.meeting(channel), "have", channel, self.id)

    async def _aoffer(self, channel: str) -> None:
        """Offers as :meth:`_offer`, in an event loop. A failure is logged."""
        try:
            async with self._meetings.aheld(channel):
                await self._post(names.meeting(channel), "have", channel, self.id)
        except GroupUnavailable as error:
            # The message is kept: others get it when they ask again.
            _log.warning("Other processes learn later of a message in %r: %s", channel, error)

    # -- groups ----------------------------------------------------------------------------------

    async def group_add(self, group: str, channel: str) -> None:
        """Adds a channel to a group. Later messages of the group reach it."""
        await self.start()
        owner = names.node_of(channel)
        if owner not in (None, self.id):
            await self._ask(str(owner), "add", group, channel)
            return
        async with self._groups.aheld(group):
            self.store.join(group, channel)
        if owner is None:
            await self._now_elsewhere(group, channel)
        self._tidy()

    async def group_discard(self, group: str, channel: str) -> None:
        """Takes a channel out of a group, if it is there."""
        owner = names.node_of(channel)
        if owner not in (None, self.id):
            await self.start()
            await self._ask(str(owner), "discard", group, channel)
            return
        self._leave(group, channel)
        if owner is None:
            await self._now_elsewhere(group, channel)

    async def _now_elsewhere(self, group: str, channel: str) -> None:
        """Has a normal channel leave a group in all other processes: it is there once at most."""
        await self._post(names.EVERYONE, "elsewhere", group, channel)

    async def group_send(self, group: str, message: bytes, text: str | None) -> None:
        """
        Sends a message to all channels of a group.

        Args:
            text: The message for WebSockets of the group, None for none.
        """
        waits = await self.backend.awaits_commit()
        # Straight into the channels here, unless it has to come with a commit.
        exclude = [] if waits else [self._key]
        await self.backend.asend(names.group(group), message, exclude)
        if text is not None:
            await self.backend.asend(group, text, [_ALL_KEY])
        if not waits and (delivery := self.store.deliver(group, message)) is not None:
            for channel in delivery.untaken:
                await self._aoffer(channel)
            # Else one that sends much would never let the consumers of its loop take it.
            for _ in range(_TURNS if delivery.is_behind else 1):
                await asyncio.sleep(0)
        self._tidy()

    def _on_group(self, group: str, message: str | bytes) -> None:
        delivery = self.store.deliver(group, message) if isinstance(message, bytes) else None
        for channel in delivery.untaken if delivery is not None else ():
            self._offer(channel)
        self._tidy()

    def _on_add(self, group: str, channel: str, node: str, number: int) -> None:
        with self._groups.held(group):
            self.store.join(group, channel)
        self._reply(names.inbox(node), "done", number)

    def _on_discard(self, group: str, channel: str, node: str, number: int) -> None:
        self._leave(group, channel)
        self._reply(names.inbox(node), "done", number)

    def _leave(self, group: str, channel: str) -> None:
        self.store.leave(group, channel)
        self._groups.end_unless_needed(group)

    def end_channel(self, channel: str) -> None:
        """Forgets a channel of this process."""
        for group in self.store.end(channel):
            self._groups.end_unless_needed(group)

    # -- all of it -------------------------------------------------------------------------------

    async def flush(self) -> None:
        """Empties all channels and groups, in all processes."""
        await self.start()
        self._clear()
        answers, number = self._question()
        try:
            await self._post(names.EVERYONE, "flush", self.id, number)
            deadline = clock.now() + self.backend.settings.timeout
            # Of others the number is a little old: one that has ended meanwhile does not answer.
            while answers.count < await self.backend.acount(names.EVERYONE) - 1:
                if clock.now() >= deadline:
                    raise self.backend.unavailable("not all processes have emptied their channels")
                # Nor does it tell anybody that it has ended.
                await answers.wait(_LOOK_S)
        finally:
            del self._answers[number]

    def _on_flush(self, node: str, number: int) -> None:
        self._clear()
        self._reply(names.inbox(node), "done", number)

    def _clear(self) -> None:
        self.store.clear()
        for memberships in (self._groups, self._meetings):
            for name in memberships.names():
                memberships.end_unless_needed(name)

    def _tidy(self) -> None:
        forgotten = self.store.tidy()
        if forgotten is not None:
            groups, channels = forgotten
            for group in groups:
                self._groups.end_unless_needed(group)
            for channel in channels:
                self._meetings.end_unless_needed(channel)

    def hand_over(self) -> None:
        """Hands messages of normal channels to processes that receive them, as this one ends."""
        # Where green threads give, it is one of theirs.
        given = self._given = threading.Event()
        try:
            for channel in self.store.held():
                frame = _packed("ends", channel, self.id)
                self.backend.send(names.meeting(channel), frame, [self._key])
            deadline = monotonic() + _FAREWELL_S
            while self.store.held() and (left := deadline - monotonic()) > 0:
                given.wait(left)
                given.clear()
            # Messages that are not held any more are being given, or were given.
            deadline += self.backend.settings.timeout
            while self._is_giving and (left := deadline - monotonic()) > 0:
                given.wait(left)
                given.clear()
        except GroupUnavailable as error:
            _log.warning("Messages of channels stay in a process that ends: %s", error)
        for channel, count in self.store.held().items():
            _log.warning("The process ends with %d messages of channel %r", count, channel)
        self._arrivals.close()

    # -- between processes -----------------------------------------------------------------------

    async def _post(self, name: str, word: str, *arguments: Any) -> None:
        """Posts a word at once: an answer to one that leaves with a commit would come too late."""
        frame = _packed(word, *arguments)
        if await self.backend.awaits_commit():
            await sync_to_async(self._post_apart, thread_sensitive=False)(name, frame)
        else:
            await self.backend.asend(name, frame, [self._key])

    def _post_apart(self, name: str, frame: bytes) -> None:
        """Posts on another thread than that of the transaction."""
        try:
            self.backend.send(name, frame, [self._key])
        finally:
            connections.close_all()

    def _reply(self, name: str, word: str, *arguments: Any) -> None:
        """Posts an answer, on the thread of arrivals. One that cannot be sent is logged."""
        try:
            self.backend.send(name, _packed(word, *arguments), [self._key])
        except GroupUnavailable as error:
            _log.warning("Another process misses %r of a channel: %s", word, error)
        finally:
            close_old_connections()

    def _take(self, frame: str | bytes) -> None:
        word, sent_at, arguments = _read(frame)
        act, types = self._words.get(word, (None, []))
        if act is None or [type(each) for each in arguments] != types:
            _log.warning("A process of another version says %r about channels", word)
        # A message may come late, with the commit of its transaction.
        elif word not in _CHANGES or self.backend.is_recent(sent_at):
            act(*arguments)

    def _question(self) -> tuple[_Answers, int]:
        number = next(self._numbers)
        answers = self._answers[number] = _Answers()
        return answers, number

    async def _ask(self, node: str, word: str, *arguments: Any) -> None:
        """Asks a process; waits until it has done it, or is seen to be gone, or ``TIMEOUT``."""
        inbox, timeout = names.inbox(node), self.backend.settings.timeout
        # Asked all the same: it may have been cut off, and be back.
        if node in self._gone and not await self.backend.acount(inbox):
            return
        answers, number = self._question()
        deadline = clock.now() + timeout
        try:
            await self._post(inbox, word, *arguments, self.id, number)
            await answers.wait(min(_MAY_BE_GONE_S, timeout))
            while not answers.count and clock.now() < deadline:
                if not await self.backend.acount(inbox):
                    if len(self._gone) >= _MOST_GONE:
                        self._gone.clear()
                    self._gone.add(node)
                    return
                await answers.wait(min(_MAY_BE_GONE_S, max(0.0, deadline - clock.now())))
        finally:
            del self._answers[number]

    def _on_done(self, number: int) -> None:
        if (answers := self._answers.get(number)) is not None:
            answers.add()


def _packed(word: str, *arguments: Any) -> bytes:
    """Returns a frame: as msgpack, a word, when it was said, and its arguments."""
    return pack([word, time.time(), *arguments])


def _read(frame: str | bytes) -> tuple[str, float, list[Any]]:
    """Returns the word, its time and the arguments of a frame; no word for other bytes."""
    try:
        found = unpack(frame) if isinstance(frame, bytes) else None
    except ValueError:
        found = None
    match found:
        case [str(word), float(sent_at), *arguments]:
            return word, sent_at, arguments
    return "", 0.0, []


class _Answers:
    """The answers to one question. One task waits for them."""

    def __init__(self) -> None:
        self.count = 0
        self._event = LoopEvent()

    def add(self) -> None:
        """Adds one. Any thread may call it."""
        self.count += 1
        self._event.set()

    async def wait(self, timeout: float) -> None:
        """Sleeps until there is one more, ``timeout`` seconds at most."""
        await self._event.wait(timeout)
        self._event = LoopEvent()


def _event_of(message: str | bytes) -> bytes:
    """Returns what consumers get for a message to ``dwebsocket.group()``."""
    kind = "text" if isinstance(message, str) else "bytes"
    return pack({"type": "group.message", kind: message})


# The nodes of this process that are to hand over.
_nodes: WeakSet[Node] = WeakSet()


@functools.cache
def _register_at_exit() -> None:
    contract.at_exit(_hand_over_all)


def _hand_over_all() -> None:
    for node in list(_nodes):
        node.hand_over()


# In a forked child none of the nodes is its own.
at_fork(_nodes.clear)
at_fork(_register_at_exit.cache_clear)
