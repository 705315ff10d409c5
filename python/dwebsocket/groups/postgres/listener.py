"""
The connection that listens: one a process, on a thread of its own, from the first use on.

The thread connects, listens, hands messages to the engine, and connects again when the connection
is lost. While it is, :attr:`Listener.is_listening` is false, and those who need it wait for the
next attempt.
"""

from __future__ import annotations

import random
import secrets
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from dwebsocket import _core
from dwebsocket.compat import unpatched
from dwebsocket.compat.postgresql import Lost, QueryFailed
from dwebsocket.compat.system import at_fork, monotonic
from dwebsocket.groups.postgres import future, history, payload, table
from dwebsocket.groups.postgres.announcing import Announcements
from dwebsocket.groups.postgres.counting import Counts
from dwebsocket.groups.postgres.link import Link
from dwebsocket.groups.postgres.reading import Readings

if TYPE_CHECKING:
    from collections.abc import Mapping
    from concurrent.futures import Future

    from dwebsocket.compat.postgresql import Library
    from dwebsocket.groups.history import Log, Position
    from dwebsocket.groups.postgres.history import Reading


#: A silently broken connection is found by a query after so many seconds without one.
PROBE_S = 5.0
# Pauses between attempts to connect; the first attempt comes at once.
_FIRST_PAUSE_S = 0.05
_LONGEST_PAUSE_S = 0.8
# Publications that are remembered, to recognise those that are published again.
_REMEMBERED = 16384
# Texts that are published by one statement.
_AT_ONCE = 64
# The token that wakes the thread.
_LOOK = 0


class CannotListen(Exception):
    """There is no connection that listens. The text says why."""


class Host:
    """
    What a listener needs of its backend.

    Attributes:
        channel: The project's.
        marker: The name by which listening connections are known to the server.
        key: For :mod:`~dwebsocket.groups.postgres.payload`.
        timeout: The seconds for which the server may be silent.
        address: Where the server is, without a password.
        keeps_history: Whether there are groups with a history.
    """

    channel: str
    marker: str
    key: bytes
    timeout: float
    address: str
    keeps_history: bool

    def connect_to(self, attempt: int) -> tuple[Library, Mapping[str, object], str | None]:
        """Returns what to connect with, and the role to take on."""
        raise NotImplementedError

    def deliver(self, name: str, envelope: bytes) -> bool:
        """Hands an envelope to the members. False when it is none, or its seal is wrong."""
        raise NotImplementedError

    def deliver_at(self, name: str, at: Position, envelope: bytes) -> None:
        """Hands the envelope of a group with a history to the members."""
        raise NotImplementedError

    def catch_up_soon(self, *names: str) -> None:
        """Hands members what they have missed of groups with a history, by default of all."""
        raise NotImplementedError

    def members(self, name: str) -> int:
        """Returns the number of members in this process."""
        raise NotImplementedError

    def wants(self, name: str, envelope: bytes | None = None) -> bool:
        """Whether an envelope on the channel of a group is for this process, as far as known."""
        raise NotImplementedError

    def names(self) -> list[str]:
        """Returns the groups that have members in this process."""
        raise NotImplementedError

    def has_history(self, name: str) -> bool:
        """Whether what members of a group have missed can be read."""
        raise NotImplementedError

    def report(self, kind: str, texts: list[str]) -> None:
        """
        Reports an event.

        Args:
            kind: ``lost`` and ``regained``: the server; ``interrupted``: groups whose members may
                have missed messages.
            texts: The reason, or the groups' names.
        """
        raise NotImplementedError

    def count_unreadable(self) -> None:
        """Counts a message that is none, or was not found."""
        raise NotImplementedError

    def report_unreadable(self, name: str, reason: str) -> None:
        """Reports that a long message to the group ``name`` could not be read."""
        raise NotImplementedError

    def report_members(self) -> None:
        """Reports what has happened to members, such as that one is slow."""
        raise NotImplementedError


class Listener:
    """Listens for one backend. Any thread may call its methods."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._lock = unpatched.lock()
        #: Whether everything that is published from now on will come.
        self.is_listening = False
        #: The seconds that the last look at that took; None while there is no connection.
        self.lag: float | None = None
        self.counts = Counts()
        self.announcements = Announcements()
        self.readings = Readings()
        self._hub: Any = None
        self._up: Future[None] | None = None
        self._link: Link | None = None
        self._is_lost = False
        self._may_run = True
        self._attempts = 0
        self._pid = 0
        self._recent: deque[str] = deque(maxlen=_REMEMBERED)
        self._answer_channel = f"{host.channel}_{secrets.token_hex(6)}"
        self._purge_until = 0.0
        self._purge_at = 0.0
        self._purge_history_at = 0.0
        _listeners.add(self)

    def listening(self) -> Future[None] | None:
        """
        Begins to listen, if need be.

        Returns:
            None while it listens. A future of the next attempt, which raises
            :class:`CannotListen`, else.
        """
        if self.is_listening:
            return None
        with self._lock:
            if self.is_listening:
                return None
            if self._up is None:
                self._up = future.new()
            self._start()
            return self._up

    def look(self) -> None:
        """Makes the thread look for what there is to do."""
        if (hub := self._hub) is not None:
            hub.announce(_LOOK)

    def read(self, reading: Reading) -> Future[Log]:
        """Returns the future of what is kept of a group, while there is a connection."""
        wanted = self.readings.want(reading)
        self.look()
        return wanted

    def stop(self) -> None:
        """Ends the thread, and with it the connection, soon."""
        self._may_run = False
        self.look()

    def leave(self) -> None:
        """Leaves the parent's connection to the parent, in a forked child."""
        if (link := self._link) is not None:
            link.leave()

    def _start(self) -> None:
        """Starts the thread. To be called under the lock."""
        if self._hub is None:
            hub = _core.Hub()
            work = unpatched.lasting("dwebsocket-groups", lambda: self._run(hub))
            unpatched.start_code("dwebsocket-groups", work)
            self._hub, self._may_run = hub, True

    # -- the thread ------------------------------------------------------------------------------

    def _run(self, hub: _core.Hub) -> None:
        pause = 0.0
        while self._may_run:
            link = None
            connected_at = monotonic()
            try:
                link = self._link = self._open(hub)
                self._begin()
                self._serve(link, hub)
                reason = "the process does not listen any more"
            except Exception as error:
                # Any error: without this thread no member would get anything any more.
                reason = _reason(error)
            if link is not None:
                self._link = None
                with suppress(Exception):
                    link.close()
            if self._end(reason):
                return
            if link is not None and monotonic() - connected_at > PROBE_S:
                pause = 0.0
            if pause:
                unpatched.pause(pause * random.uniform(0.5, 1.0))  # noqa: S311
            pause = min(max(_FIRST_PAUSE_S, 2 * pause), _LONGEST_PAUSE_S)

    def _open(self, hub: _core.Hub) -> Link:
        host = self._host
        self._attempts += 1
        library, parameters, role = host.connect_to(self._attempts - 1)
        link = Link(library, parameters, host.timeout, hub.fileno())
        try:
            if role is not None:
                link.query("SET ROLE " + '"' + role.replace('"', '""') + '"')
            link.query(f"LISTEN {host.channel}")
            link.query(f"LISTEN {self._answer_channel}")
            # Afterwards: those who ask wait for an answer of each connection with this name.
            asked_at = monotonic()
            ((_, pid),) = link.query(
                f"SELECT set_config('application_name', '{host.marker}', false), pg_backend_pid()"
            )
            self.lag = monotonic() - asked_at
            self._pid = int(pid or 0)
        except BaseException:
            link.close()
            raise
        return link

    def _begin(self) -> None:
        was_lost, self._is_lost = self._is_lost, False
        with self._lock:
            self.is_listening = True
            up, self._up = self._up, None
        if up is not None:
            up.set_result(None)
        if was_lost:
            self._host.report("regained", [])
            self._host.catch_up_soon()
            names = [name for name in self._host.names() if not self._host.has_history(name)]
            if names:
                self._host.report("interrupted", names)

    def _end(self, reason: str) -> bool:
        """Notes that there is no connection any more, or yet. True when none is needed."""
        was_listening, self.is_listening = self.is_listening, False
        self.lag = None
        if was_listening and self._may_run:
            self._is_lost = True
            self._host.report("lost", [reason])
        error = CannotListen(reason)
        self.counts.fail(error)
        self.announcements.fail(error)
        if was_listening and self._may_run:
            self.readings.put_back(error)
        else:
            self.readings.fail(error)
        has_members = bool(self._host.names())
        with self._lock:
            # Callers that wait since it was lost get an attempt first.
            up = None if was_listening and self._may_run else self._up
            if up is not None:
                self._up = None
            is_awaited = self._up is not None or self.readings.is_wanted
            is_needed = self._may_run and (has_members or is_awaited)
            if not is_needed:
                self._hub = None
        if up is not None:
            up.set_exception(error)
        return not is_needed

    def _serve(self, link: Link, hub: _core.Hub) -> None:
        probe_at = monotonic() + PROBE_S
        while self._may_run:
            self._ask(link)
            self._announce(link)
            self._read(link)
            if monotonic() >= probe_at:
                self._probe(link)
                probe_at = monotonic() + PROBE_S
            # The last of all that asks the server: notifications come with any answer.
            while link.has_more:
                self._handle(link)
            self._host.report_members()
            # Within the time for which those who asked wait.
            left = self.counts.give_up(0.75 * self._host.timeout)
            timeout = probe_at - monotonic()
            link.wait(timeout if left is None else min(left, timeout))
            hub.drain()

    def _probe(self, link: Link) -> None:
        # A pooler may have put another connection to the server in the place of this one.
        asked_at = monotonic()
        rows = link.query("SELECT pg_listening_channels()")
        self.lag = monotonic() - asked_at
        if (self._host.channel,) not in rows:
            raise Lost("the connection has stopped to listen: is there a pooler in between?")
        now = monotonic()
        if self._purge_at <= now < self._purge_until:
            self._purge_at = now + table.PURGE_EVERY_S
            with suppress(QueryFailed):
                link.query(table.PURGE)
        if self._host.keeps_history and self._purge_history_at <= now:
            self._purge_history_at = now + table.PURGE_EVERY_S
            with suppress(QueryFailed):
                link.query(history.PURGE)

    def _ask(self, link: Link) -> None:
        host = self._host
        for count in self.counts.take_new():
            question = payload.Question(count.number, self._answer_channel, count.name)
            text = payload.of_question(question, host.key)
            ((pids, _),) = link.query(
                f"SELECT (SELECT string_agg(pid::text, ' ') FROM {self._listeners}), "  # noqa: S608
                f"pg_notify('{host.channel}', '{text}')"
            )
            self.counts.expect(count, {int(pid) for pid in (pids or "").split()})

    @property
    def _listeners(self) -> str:
        """The connections that listen, as a part of a query."""
        marker = self._host.marker
        return (
            "pg_stat_activity WHERE datname = current_database() "
            f"AND left(application_name, {len(marker)}) = '{marker}'"
        )

    def _announce(self, link: Link) -> None:
        for announcement in self.announcements.take():
            processes = 0
            try:
                for start in range(0, len(announcement.texts), _AT_ONCE):
                    texts = announcement.texts[start : start + _AT_ONCE]
                    calls = "".join(f", pg_notify('{self._host.channel}', '{t}')" for t in texts)
                    rows = link.query(f"SELECT (SELECT count(*) FROM {self._listeners}){calls}")  # noqa: S608
                    processes = int(rows[0][0] or 0)
            except Exception as error:
                announcement.future.set_exception(CannotListen(_reason(error)))
                if not isinstance(error, QueryFailed):
                    raise
            else:
                announcement.future.set_result(processes)

    def _read(self, link: Link) -> None:
        for reading, wanted in self.readings.take_new().items():
            try:
                found = history.read(link.query, reading, self._host.key)
            except QueryFailed as error:
                wanted.future.set_exception(CannotListen(_reason(error)))
            else:
                wanted.future.set_result(found)

    def _handle(self, link: Link) -> None:
        answers: list[str] = []
        while (notification := link.take()) is not None:
            found = payload.read(notification[1], self._host.key)
            if isinstance(found, payload.Message):
                if not self._is_double(found):
                    self._deliver(payload.unpack(found.content))
            elif isinstance(found, payload.Row):
                if not self._is_double(found):
                    self._fetch(link, found)
            elif isinstance(found, payload.Recorded):
                self._deliver_recorded(found)
            elif isinstance(found, payload.Question):
                answer = payload.Answer(found.number, self._pid, self._host.members(found.name))
                text = payload.of_answer(answer, self._host.key)
                answers.append(f"pg_notify('{found.channel}', '{text}')")
            elif isinstance(found, payload.Answer):
                self.counts.add(found)
        if answers:
            link.query(f"SELECT {', '.join(answers)}")

    def _is_double(self, found: payload.Message | payload.Row) -> bool:
        if found.is_repeated and found.publication in self._recent:
            return True
        self._recent.append(found.publication)
        return False

    def _deliver(self, unpacked: tuple[str, bytes] | None) -> bool:
        """Hands a message to the members here, if there are any. False when it is none."""
        if unpacked is None:
            self._host.count_unreadable()
            return False
        # Most processes have no member of most groups: do not check the seal for nothing.
        return not self._host.wants(*unpacked) or self._host.deliver(*unpacked)

    def _deliver_recorded(self, found: payload.Recorded) -> None:
        name, envelope = payload.unpack(found.content) or (None, b"")
        if name is None:
            self._host.count_unreadable()
        elif not self._host.members(name):
            return
        elif found.is_whole:
            self._host.deliver_at(name, (found.epoch, found.number), envelope)
        else:
            self._host.catch_up_soon(name)

    def _fetch(self, link: Link, row: payload.Row) -> None:
        now = monotonic()
        if now >= self._purge_until:
            self._purge_at = now
        self._purge_until = now + table.PURGE_FOR_S
        if not self._host.wants(row.name):
            return
        try:
            rows = link.query(table.select(row.number))
            content = rows[0][0] if rows else None
            reason = "it was changed" if rows else "it is not there"
        except QueryFailed as error:
            content, reason = None, _reason(error)
        if content is None:
            self._host.count_unreadable()
        if content is None or not self._deliver(payload.unpack(content)):
            self._host.report_unreadable(row.name, reason)
            self._host.report("interrupted", [row.name])


def _reason(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


_listeners: WeakSet[Listener] = WeakSet()


def _leave_parents_connections() -> None:
    for listener in list(_listeners):
        listener.leave()
    _listeners.clear()


at_fork(_leave_parents_connections)
