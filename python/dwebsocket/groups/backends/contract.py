"""
The contract of a backend, which carries messages of groups between processes.

A backend moves *envelopes*, opaque bytes, from the process that publishes to every process that has
members of the group, the publishing one among them. The members are not its business: it passes
envelopes on to :meth:`Backend.deliver`, and the engine does the rest.
"""

from __future__ import annotations

import hmac
import logging
import os
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.utils.encoding import force_bytes

from dwebsocket import _core
from dwebsocket.api.waiting.steps import Call, arun, run
from dwebsocket.compat import threading, unpatched
from dwebsocket.compat.work_queue import WorkQueue
from dwebsocket.conf.group_settings import DEFAULT
from dwebsocket.exceptions import GroupUnavailable
from dwebsocket.telemetry import clock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import ClassVar, Literal

    from dwebsocket.api.waiting.steps import Steps
    from dwebsocket.conf.group_settings import BackendSettings
    from dwebsocket.groups.history import Page, Position

    Joined = Literal["joined", "behind", "over"]
    #: For `_core.Presence.enter`: the connection's key, the user's key and primary key, the present
    #: moment, what it says, whether it watches, the grace, the connection's name, whether its user
    #: is present by it, whether this process tells when its user joins, and when it has said it, in
    #: milliseconds since 1970, if not now.
    Arrival = tuple[
        bytes, str, str | None, str, str | None, bool, float, str, bool, bool, int | None
    ]
    #: The user that has joined, and the wait before `_core.Presence.tells` is asked, if any.
    Joining = tuple[_core.Member, _core.Wait | None]
    #: Empty where no user has joined; None when the connection is over.
    Entered = Joining | tuple[()] | None

    Message = str | bytes
    Exclude = list[bytes]
    Member = _core.Connection | _core.Mailbox | _core.Seat | _core.Deputy


_log = logging.getLogger("dwebsocket")

# So many subscriptions are kept without looking whether they are used.
_FEW_SUBSCRIPTIONS = 1000
# What other processes tell or ask counts for so long, where others may send it again.
_LONGEST_WAY_S = 300.0
# See `telling_timeout`.
_TELLING_TIMEOUT_S = 1.0
# The name of a group that is never used.
_NO_GROUP = "dwebsocket.check"


def at_exit(stop: Callable[[], None]) -> None:
    """Calls ``stop`` when the process ends by itself, not in its children."""
    parent = os.getpid()

    def stop_here() -> None:
        if os.getpid() == parent:
            stop()

    threading.at_exit(stop_here)


class Backend:
    """
    The base class of backends.

    One object serves one alias of ``WEBSOCKET_GROUPS`` in one process; it is made on the first use
    of a group, and anew in a forked child. Any thread may call any method at any time.

    A subclass implements :meth:`publish`, :meth:`apublish` and :meth:`count`, and where processes
    have to ask for the groups whose messages they want, :meth:`subscribe` and :meth:`unsubscribe`.

    Attributes:
        waits: Whether the sync calls wait for a server. Then they may not be called in an event
            loop.
        medium: What carries its messages, as the log calls it.
        alias: The name in ``WEBSOCKET_GROUPS``.
        settings: The entry there.
    """

    waits = True
    medium = "server"
    #: Whether other users of the machine or the network may reach the way that envelopes take.
    #: Then they are sealed with a key that is made from ``SECRET_KEY``.
    is_sealed = True
    #: Whether it keeps the history of groups: see
    #: :class:`~dwebsocket.groups.HistoryBackend`.
    keeps_history = False
    #: Whether it knows which users are present: see
    #: :class:`~dwebsocket.groups.PresenceBackend`.
    keeps_presence = False
    #: Messages that processes of the site did not hear, as far as that is known.
    apart = 0
    #: Reports what happens to a backend. :mod:`.reports`, which uses backends, sets it.
    reporter: ClassVar[Callable[[Backend], None]]

    def __init__(self, alias: str, own: BackendSettings) -> None:
        """Makes the backend. Opens no connection: that is for the first call that needs one."""
        self.alias = alias
        self.settings = own
        self._groups: _core.Groups | None = None
        self._groups_lock = unpatched.lock()
        self._presence: _core.Presence | None = None
        self._has_warned = False
        self._has_warned_of_age = False
        self._has_reporter = False
        self._joining_lock = unpatched.lock()
        # How many calls are about to add a member, by the names of the groups.
        self._joining: dict[str, int] = {}
        self._subscribing = WorkQueue("dwebsocket-subscribe")
        # Names that were subscribed to, if that matters. Connections that end do not say so: when
        # there are too many names, those without members are found.
        self._unsubscribes = type(self).unsubscribe is not Backend.unsubscribe
        self._subscribed: set[str] = set()
        self._most_subscribed = _FEW_SUBSCRIPTIONS

    # -- what a backend implements ---------------------------------------------------------------

    def publish(self, name: str, envelope: bytes) -> None:
        """
        Passes an envelope on to all processes that have subscribed to ``name``, this one too.

        Envelopes of one thread or task reach each process in order, none twice.

        Raises:
            GroupUnavailable: It cannot be passed on within ``settings.timeout``. No process has
                got it, or it timed out: then it may have arrived.
        """
        raise NotImplementedError

    async def apublish(self, name: str, envelope: bytes) -> None:
        """Publishes as :meth:`publish`, and raises the same, without blocking the event loop."""
        raise NotImplementedError

    def subscribe(self, name: str) -> None:
        """
        Asks for the envelopes of ``name``: each that is published from now on is delivered.

        Called before a process has its first member of a group.

        Raises:
            GroupUnavailable: The backend cannot be reached within ``settings.timeout``.
        """

    async def asubscribe(self, name: str) -> None:
        """Subscribes as :meth:`subscribe`, and raises the same, without blocking the event loop."""

    def unsubscribe(self, name: str) -> None:
        """
        Takes a subscription back: this process has no member any more. Never waits.

        Called when the last member has left. When its connection has ended instead, this is called
        when the next envelope for the group comes, or when such groups have become many. A
        subscription that is not there is ignored.
        """

    def count(self, name: str) -> int:
        """
        Returns the number of members in all processes, as known now.

        Raises:
            GroupUnavailable: The backend cannot be reached within ``settings.timeout``.
        """
        raise NotImplementedError

    async def acount(self, name: str) -> int:
        """Counts as :meth:`count`, and raises the same, without blocking the event loop."""
        raise NotImplementedError

    def has_to_commit(self) -> bool:
        """
        Whether what this thread publishes now leaves later: when a transaction commits.

        False where publishing has nothing to do with transactions.
        """
        return False

    async def awaits_commit(self) -> bool:
        """Says of this task what :meth:`has_to_commit` says of a thread."""
        return False

    # -- the history, where one is kept ----------------------------------------------------------

    def read_history(self, name: str, after: Position | None, limits: tuple[int, float]) -> Page:
        """
        Returns the newest position of a group, and the messages after ``after`` that are kept.

        Args:
            name: The group's name.
            after: Epoch and offset; None, or another epoch, for all.
            limits: The number of messages, and the seconds, that are wanted at most.

        Raises:
            GroupUnavailable: The backend cannot be reached within ``settings.timeout``.
        """
        return run(self._read_history(name, after, limits))

    async def aread_history(
        self, name: str, after: Position | None, limits: tuple[int, float]
    ) -> Page:
        """Reads as :meth:`read_history`, and raises the same, without blocking the event loop."""
        return await arun(self._read_history(name, after, limits))

    def _read_history(
        self, name: str, after: Position | None, limits: tuple[int, float]
    ) -> Steps[Page]:
        raise NotImplementedError

    def catch_up(self, name: str) -> None:
        """
        Hands the members in this process what they have missed of a group.

        Raises:
            GroupUnavailable: As :meth:`read_history`.
        """
        run(self._catch_up(name))

    async def acatch_up(self, name: str) -> None:
        """Catches up as :meth:`catch_up`, and raises the same, without blocking the event loop."""
        await arun(self._catch_up(name))

    def _catch_up(self, name: str) -> Steps[None]:
        raise NotImplementedError

    def join_at(
        self, name: str, member: Member, key: bytes, at: Position, *, numbered: bool
    ) -> Joined:
        """
        Makes a connection that has got all messages up to ``at`` a member of a group that is held.

        Returns:
            "behind" when there are later ones, which it has to get first; "over" when it has ended.

        Raises:
            GroupUnavailable: As :meth:`read_history`.
        """
        return run(self._join_at(name, member, key, at, numbered=numbered))

    async def ajoin_at(
        self, name: str, member: Member, key: bytes, at: Position, *, numbered: bool
    ) -> Joined:
        """Joins as :meth:`join_at`, and raises the same, without blocking the event loop."""
        return await arun(self._join_at(name, member, key, at, numbered=numbered))

    def _join_at(
        self, name: str, member: Member, key: bytes, at: Position, *, numbered: bool
    ) -> Steps[Joined]:
        joined = self.groups.enter_at(name, member, key, at, is_numbered=numbered)
        if joined == "early":
            yield Call(self.catch_up, self.acatch_up, name)
            joined = self.groups.enter_at(name, member, key, at, is_numbered=numbered)
        if joined == "first":
            try:
                # Messages may have come while this process had no member.
                yield Call(self.catch_up, self.acatch_up, name)
            except BaseException:
                self.discard(name, member)
                raise
        if joined == "over":
            return "over"
        # One that is early has read what the log does not have any more.
        return "joined" if joined in ("first", "joined") else "behind"

    # -- presence, where users are known ---------------------------------------------------------

    def enter(self, name: str, member: Member, visit: Arrival) -> Entered:
        """
        Makes the user of a connection of this process present in a group.

        Raises:
            GroupUnavailable: The backend cannot be reached within ``settings.timeout``.
        """
        return run(self.entering(name, member, visit))

    @property
    def telling_timeout(self) -> float:
        """
        The seconds for which another process is waited for that may tell that a user has joined.

        One that does not answer then has been stopped.
        """
        return min(_TELLING_TIMEOUT_S, self.settings.timeout / 2)

    def entering(self, name: str, member: Member, visit: Arrival) -> Steps[Entered]:
        """Has the steps of :meth:`enter`."""
        raise NotImplementedError

    def gathering(self, name: str) -> Steps[list[_core.Member]]:
        """
        Has the steps that return the users that are present in a group, in all processes.

        Raises:
            GroupUnavailable: As :meth:`enter`.
        """
        raise NotImplementedError

    def problems(self, *, deploy: bool) -> list[str]:
        """
        Returns what is wrong with the settings, for Django's system checks: each as a sentence.

        Args:
            deploy: Whether the server is to be asked, too, as by ``check --deploy``. By default it
                is asked for a count.
        """
        if deploy:
            try:
                self.count(_NO_GROUP)
            except GroupUnavailable as error:
                return [f"{error}."]
            except NotImplementedError:
                return [f"{type(self).__qualname__} has no method count() of its own."]
        return []

    # -- what a backend calls --------------------------------------------------------------------

    def deliver(self, name: str, envelope: bytes) -> bool:
        """
        Hands an envelope to the members in this process. Never waits.

        Returns:
            False for bytes that are no envelope; they are ignored.
        """
        if not self.groups.count(name):
            self.unsubscribe_if_unused(name)
        is_envelope = self.groups.deliver(name, envelope)
        if not is_envelope:
            self.groups.note("unreadable")
        return is_envelope

    def is_recent(self, sent_at: float) -> bool:
        """
        Whether what another process has sent at a time since 1970 counts still.

        An older or newer one, by this machine's clock, is counted, and logged the first time:
        another user of the backend's server may have kept it, and sent it again.
        """
        if not self.is_sealed or abs(time.time() - sent_at) <= _LONGEST_WAY_S:
            return True
        self.groups.note("unreadable")
        if not self._has_warned_of_age:
            self._has_warned_of_age = True
            _log.warning(
                "Groups of %r: what another process has sent more than %d seconds ago is ignored. "
                "Perhaps the clocks of both machines differ by so much.",
                self.alias,
                _LONGEST_WAY_S,
            )
        return False

    def presence_interrupted(self, *names: str) -> None:
        """Notes that messages to these groups may have been lost; to all, without a name."""

    def project_key(self, purpose: str) -> bytes:
        """
        Returns 32 secret bytes that the processes of this project have in common.

        They differ with ``SECRET_KEY``, with ``PREFIX``, with the backend's alias and with
        ``purpose``: groups of two backends are two, also in one folder or on one server.
        """
        key = force_bytes(settings.SECRET_KEY)
        text = f"dwebsocket groups {purpose} {self.settings.prefix}".encode()
        if self.alias != DEFAULT:
            text += b"\0" + self.alias.encode()
        return hmac.digest(key, text, "sha256")

    def unavailable(self, reason: str) -> GroupUnavailable:
        """Returns the exception for a backend that cannot be reached."""
        where = f" at {self.address}" if self.address else ""
        return GroupUnavailable(f"groups of {self.alias!r}{where}: {reason}")

    @contextmanager
    def starting(self) -> Iterator[None]:
        """Has it be :class:`GroupUnavailable` that the system gives no thread or descriptor."""
        try:
            yield
        except GroupUnavailable:
            raise
        except (OSError, RuntimeError) as error:
            lacking = "descriptor" if isinstance(error, OSError) else "thread"
            raise self.unavailable(f"the system gives no {lacking}: {error}") from error

    def _time_left(self, deadline: float) -> float:
        """Returns the seconds that a publisher may still wait for the engine's room."""
        left = deadline - clock.now()
        if left <= 0:
            raise self.unavailable("more is published than can be delivered")
        return left

    @property
    def address(self) -> str:
        """The address for messages, without passwords."""
        return ""

    @property
    def lag(self) -> float | None:
        """
        The seconds from publishing until it is here, as last measured; None where it is not.

        For :func:`dwebsocket.group_statistics`. Never waits.
        """
        return None

    @property
    def history_usage(self) -> tuple[int, int] | None:
        """
        The bytes of the history that ``WEBSOCKET_MAX_HISTORY`` limits, and the number of messages
        that were dropped for it; None where a server keeps the history, or nothing is kept yet.

        For :func:`dwebsocket.group_statistics`. Never waits.
        """
        return None

    # -- for the rest of the package -------------------------------------------------------------

    @property
    def groups(self) -> _core.Groups:
        """
        The groups with members in this process, made on first use.

        Raises:
            GroupUnavailable: The system has no thread or descriptor left for them.
        """
        if self._groups is None:
            # Two threads must not make two: members of one would not get what comes to the other.
            with self._groups_lock:
                if self._groups is None:
                    key = self.project_key("seal") if self.is_sealed else None
                    try:
                        self._groups = _core.Groups(self.settings.slow, key)
                    except OSError as error:
                        raise self.unavailable(error.strerror or str(error)) from error
        return self._groups

    @property
    def presence(self) -> _core.Presence:
        """The users that are present in groups, as this process knows them."""
        if self._presence is None:
            groups = self.groups
            with self._groups_lock:
                if self._presence is None:
                    self._presence = _core.Presence(groups)
        return self._presence

    def send(self, name: str, message: Message, exclude: Exclude) -> None:
        """Publishes a message."""
        envelope = self.groups.encode(name, message, exclude)
        try:
            self._pass_on(name, envelope)
        except GroupUnavailable:
            self.groups.note("failed", name)
            raise

    async def asend(self, name: str, message: Message, exclude: Exclude) -> None:
        """Publishes a message, without blocking the event loop."""
        envelope = self.groups.encode(name, message, exclude)
        try:
            await self._apass_on(name, envelope)
        except GroupUnavailable:
            self.groups.note("failed", name)
            raise

    def _pass_on(self, name: str, envelope: bytes) -> None:
        """Publishes a message of a group, which may have a history."""
        self.publish(name, envelope)

    async def _apass_on(self, name: str, envelope: bytes) -> None:
        """Publishes a message as :meth:`_pass_on`, without blocking the event loop."""
        await self.apublish(name, envelope)

    def close(self, name: str, code: int, reason: str) -> None:
        """Closes the members."""
        self.publish(name, self.groups.encode_close(name, code, reason))

    async def aclose(self, name: str, code: int, reason: str) -> None:
        """Closes the members, without blocking the event loop."""
        await self.apublish(name, self.groups.encode_close(name, code, reason))

    def evict(self, name: str, whom: bytes | str, reason: str) -> None:
        """Takes members out of a group: one by its key, or all of a user by the user's name."""
        self.publish(name, self.groups.encode_eviction(name, whom, reason))

    async def aevict(self, name: str, whom: bytes | str, reason: str) -> None:
        """Evicts as :meth:`evict`, without blocking the event loop."""
        await self.apublish(name, self.groups.encode_eviction(name, whom, reason))

    @property
    def event_publisher(self) -> _core.Groups | _core.LocalNode | None:
        """What the engine passes events on by, without Python; None where it cannot."""
        return None

    def pass_event(self, name: str, rest: str, exclude: Exclude) -> None:
        """Passes a text on to members of rooms, as it stands after the room's name."""
        self.publish(name, self.groups.encode_event(name, rest, exclude))

    async def apass_event(self, name: str, rest: str, exclude: Exclude) -> None:
        """Passes on as :meth:`pass_event`, without blocking the event loop."""
        await self.apublish(name, self.groups.encode_event(name, rest, exclude))

    def add(self, name: str, member: Member, key: bytes) -> bool:
        """Makes a connection a member; false when it is over."""
        self.hold(name)
        try:
            return self.join(name, member, key)
        finally:
            self.release(name)

    async def aadd(self, name: str, member: Member, key: bytes) -> bool:
        """Makes a connection a member, without blocking the event loop."""
        await self.ahold(name)
        try:
            return self.join(name, member, key)
        finally:
            self.release(name)

    def discard(self, name: str, member: Member) -> None:
        """Ends a membership."""
        if self.groups.leave(name, member):
            self.unsubscribe_if_unused(name)

    def hold(self, name: str) -> None:
        """
        Subscribes for a member that joins later, until :meth:`release`.

        Raises:
            GroupUnavailable: As :meth:`subscribe`; then nothing has to be released.
        """
        run(self._hold(name))

    async def ahold(self, name: str) -> None:
        """Holds as :meth:`hold`, and raises the same, without blocking the event loop."""
        await arun(self._hold(name))

    def _hold(self, name: str) -> Steps[None]:
        self._enter(name)
        try:
            yield Call(self.subscribe, self.asubscribe, name)
        except BaseException:
            self.release(name)
            raise

    def holding_all(self, names: list[str]) -> Steps[None]:
        """
        Has the steps of holding many groups as :meth:`hold`; a backend may do it in one round trip.

        Raises:
            GroupUnavailable: As :meth:`subscribe`; none of them has to be released then.
        """
        held: list[str] = []
        try:
            for name in names:
                yield from self._hold(name)
                held.append(name)
        except BaseException:
            self._release_all(held)
            raise

    def _release_all(self, names: list[str]) -> None:
        for name in names:
            self.release(name)

    def hold_soon(self, name: str) -> None:
        """Holds a group, but never waits and never raises: a failure is logged."""
        self._enter(name)
        try:
            self.subscribe_soon(name)
        except BaseException:
            self.release(name)
            raise

    def join(self, name: str, member: Member, key: bytes) -> bool:
        """Makes a connection a member of a group that is held; false when it is over."""
        return self.groups.join(name, member, key) is not None

    def release(self, name: str) -> None:
        """Ends a :meth:`hold`, after the member has joined, or when none will. Never waits."""
        if not self._unsubscribes:
            return
        with self._joining_lock:
            self._joining[name] -= 1
            if not self._joining[name]:
                del self._joining[name]
        self.unsubscribe_if_unused(name)

    def subscribe_soon(self, name: str) -> None:
        """Subscribes, but never waits and never raises: a failure is logged."""
        if not self.waits:
            self._try(self.subscribe, name)
            return
        with self.starting():
            self._subscribing.add((self._subscribe_now, name))

    def unsubscribe_if_unused(self, name: str) -> None:
        """Takes a subscription back that no member of this process needs. Never waits."""
        if not self._unsubscribes or self.groups.count(name):
            return
        # Under the lock: else one that joins meanwhile might subscribe first.
        with self._joining_lock:
            if name not in self._joining and not self.groups.count(name):
                self._subscribed.discard(name)
                # A server that is away knows of no subscription.
                with suppress(GroupUnavailable):
                    self.unsubscribe(name)

    def _subscribe_now(self, name: str) -> None:
        try:
            self._try(self.subscribe, name)
        except Exception:
            _log.exception("Messages to %r may not reach this process", name)

    def _try(self, subscribe: Callable[[Any], object], argument: Any) -> None:
        try:
            subscribe(argument)
        except GroupUnavailable as error:
            # Once an outage.
            if not self._has_warned:
                self._has_warned = True
                _log.warning("Messages to users may not reach this process: %s", error)
        else:
            self._has_warned = False

    def _start_reports(self) -> None:
        """Begins to report what happens to members here, in the log and by signals. Never waits."""
        if not self._has_reporter:
            with self._groups_lock:
                starts, self._has_reporter = not self._has_reporter, True
            if starts:
                try:
                    with self.starting():
                        type(self).reporter(self)
                except BaseException:
                    self._has_reporter = False
                    raise

    def _enter(self, name: str) -> None:
        self._start_reports()
        if not self._unsubscribes:
            # Nothing is taken back: no need to know who is about to join.
            return
        with self._joining_lock:
            self._joining[name] = self._joining.get(name, 0) + 1
            self._subscribed.add(name)
            if len(self._subscribed) <= self._most_subscribed:
                return
            unused = self._subscribed.difference(name for name, _ in self.groups.counts())
            unused.difference_update(self._joining)
            # Looks again when there are twice as many: the work for each name stays the same.
            used = len(self._subscribed) - len(unused)
            self._most_subscribed = 2 * used + _FEW_SUBSCRIPTIONS
        for each in unused:
            self.unsubscribe_if_unused(each)
