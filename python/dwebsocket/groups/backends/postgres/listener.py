"""
The connection that listens: one a process, on a thread of its own, from the first use on.

The thread connects, listens, hands messages to the engine, and connects again when the connection
is lost. While it is, :attr:`Listener.is_listening` is false, and those who need it wait for the
next attempt.
"""

from __future__ import annotations

import logging
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
from dwebsocket.groups import reports
from dwebsocket.groups.backends.postgres import future, history, payload, table
from dwebsocket.groups.backends.postgres.counting import Count, Counts
from dwebsocket.groups.backends.postgres.link import Link
from dwebsocket.groups.backends.postgres.parameters import text_of
from dwebsocket.groups.backends.postgres.queries import Queries

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

    from dwebsocket.groups.backends.postgres.history import Reading
    from dwebsocket.groups.backends.postgres.place import Place
    from dwebsocket.groups.history import Log
    from dwebsocket.groups.history.recorded import HistoryBackend

_log = logging.getLogger("dwebsocket")

#: A silently broken connection is found by a query after so many seconds without one.
PROBE_S = 5.0
# Seconds between two readings of the histories of groups that have members here: that is use.
_USE_EVERY_S = 3600.0
# Pauses between attempts to connect; the first attempt comes at once.
_FIRST_PAUSE_S = 0.05
_LONGEST_PAUSE_S = 0.8
# Publications that are remembered, to recognise those that are published again.
_REMEMBERED = 16384
# Texts that are published by one statement, and notifications that are handled before the next look
# at what other threads want.
_AT_ONCE = 64
# The key of the queries that settle. Those that count have the group's name.
_SETTLED = object()
# The token that wakes the thread.
_LOOK = 0


class CannotListen(Exception):
    """There is no connection that listens. The text says why."""


class Listener:
    """
    Listens for one backend. Any thread may call its methods.

    Args:
        backend: The backend.
        place: Where its connection leads to.
        wants: Whether an envelope on the channel of a group is for this process, as far as known;
            without the envelope, whether any may be.
    """

    def __init__(
        self, backend: HistoryBackend, place: Place, wants: Callable[[str, bytes | None], bool]
    ) -> None:
        self._backend, self._place, self._wants = backend, place, wants
        self._lock = unpatched.lock()
        #: Whether everything that is published from now on will come.
        self.is_listening = False
        #: The seconds that the last look at that took; None while there is no connection.
        self.lag: float | None = None
        self.counts = Counts()
        self._queries = Queries()
        self._hub: Any = None
        self._up: Future[None] | None = None
        self._link: Link | None = None
        self._is_lost = False
        self._may_run = True
        self._attempts = 0
        self._pid = 0
        self._recent: deque[str] = deque(maxlen=_REMEMBERED)
        self._answer_channel = f"{place.channel}_{secrets.token_hex(6)}"
        self._purge_until = 0.0
        self._purge_at = 0.0
        self._purge_history_at = 0.0
        self._use_at = 0.0
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

    @property
    def connection(self) -> int:
        """The number of the connection that listens, another one after each gap; 0 without one."""
        number = self._attempts
        # Afterwards: it rises while none does.
        return number if self.is_listening else 0

    def wake(self) -> None:
        """Makes the thread look for what there is to do."""
        if (hub := self._hub) is not None:
            hub.announce(_LOOK)

    def read(self, reading: Reading) -> Future[Log]:
        """Returns the future of what is kept of a group. The same readings share a query."""

        def ask(link: Link, found: Future[Log]) -> None:
            found.set_result(history.read(link.query, reading, self._place.key))

        return self._soon(self._queries.add(reading, ask))

    def settle(self) -> Future[None]:
        """Returns the future of the moment at which all is delivered that was published before."""
        return self._soon(self._queries.add(_SETTLED, self._settle))

    def count(self, name: str) -> Future[int]:
        """Returns the future of the number of members in all processes that listen."""
        return self._soon(self._queries.add(name, lambda *given: self._ask(name, *given)))

    def announce(self, texts: list[str]) -> Future[int]:
        """
        Publishes texts that ``NOTIFY`` takes, in order, outside of the project's transactions.

        Returns:
            The future of the number of processes that listen.
        """
        return self._soon(self._queries.add(object(), lambda *given: self._announce(texts, *given)))

    def _soon(self, found: Future[Any]) -> Future[Any]:
        self.wake()
        return found

    def stop(self) -> None:
        """Ends the thread, and with it the connection, soon."""
        self._may_run = False
        self.wake()

    def leave(self) -> None:
        """Leaves the parent's connection to the parent, in a forked child."""
        if (link := self._link) is not None:
            link.leave()

    def _start(self) -> None:
        """Starts the thread. To be called under the lock."""
        if self._hub is None:
            with self._backend.starting():
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
                reason = text_of(error)
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
        place = self._place
        self._attempts += 1
        library, parameters, role = place.connect_to(self._attempts - 1)
        link = Link(library, parameters, place.timeout, hub.fileno())
        try:
            if role is not None:
                link.query("SET ROLE " + '"' + role.replace('"', '""') + '"')
            link.query(f"LISTEN {place.channel}")
            link.query(f"LISTEN {self._answer_channel}")
            # Afterwards: those who ask wait for an answer of each connection with this name.
            asked_at = monotonic()
            ((_, pid),) = link.query(
                f"SELECT set_config('application_name', '{place.marker}', false), pg_backend_pid()"
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
            self._report("regained", [])
            self._backend.catch_up_soon()
            kept = self._backend.settings.kept
            names = [name for name in self._names() if kept(name) is None]
            for name in names:
                self._backend.groups.note_loss(name)
            if names:
                self._report("interrupted", names)

    def _end(self, reason: str) -> bool:
        """Notes that there is no connection any more, or yet. True when none is needed."""
        was_listening, self.is_listening = self.is_listening, False
        self.lag = None
        if was_listening and self._may_run:
            self._is_lost = True
            self._report("lost", [reason])
        error = CannotListen(reason)
        self.counts.fail(error)
        self._queries.fail(error)
        with self._lock:
            # Under the lock: one that joins meanwhile asks for a listener afterwards.
            has_members = bool(self._names())
            # Callers that wait since it was lost get an attempt first.
            up = None if was_listening and self._may_run else self._up
            if up is not None:
                self._up = None
            is_needed = self._may_run and (has_members or self._up is not None)
            if not is_needed:
                self._hub = None
        if up is not None:
            up.set_exception(error)
        return not is_needed

    def _serve(self, link: Link, hub: _core.Hub) -> None:
        probe_at = monotonic() + PROBE_S
        while self._may_run:
            self._answer(link)
            if monotonic() >= probe_at:
                self._probe(link)
                probe_at = monotonic() + PROBE_S
            self._handle(link, _AT_ONCE)
            # Events of members, such as that one is slow.
            while (notice := self._backend.groups.take_notice(0)) is not None:
                self._report(*notice)
            # Within the time for which those who asked wait.
            left = self.counts.give_up(0.75 * self._place.timeout)
            # Notifications come with any answer of the server.
            timeout = 0.0 if link.waiting else probe_at - monotonic()
            link.wait(timeout if left is None else min(left, timeout))
            hub.drain()

    def _probe(self, link: Link) -> None:
        # A pooler may have put another connection to the server in the place of this one.
        asked_at = monotonic()
        rows = link.query("SELECT pg_listening_channels()")
        self.lag = monotonic() - asked_at
        if (self._place.channel,) not in rows:
            raise Lost("the connection has stopped to listen: is there a pooler in between?")
        now = monotonic()
        if self._purge_at <= now < self._purge_until:
            self._purge_at = now + table.PURGE_EVERY_S
            with suppress(QueryFailed):
                link.query(table.PURGE)
        if self._backend.settings.history and self._purge_history_at <= now:
            self._purge_history_at = now + table.PURGE_EVERY_S
            with suppress(QueryFailed):
                link.query(history.PURGE)
        if self._use_at <= now:
            self._use_at = now + _USE_EVERY_S
            self._backend.catch_up_soon()

    def _answer(self, link: Link) -> None:
        """Does what other threads want."""
        for query in self._queries.take():
            try:
                query.ask(link, query.future)
            except QueryFailed as error:
                query.future.set_exception(CannotListen(text_of(error)))

    def _settle(self, link: Link, found: Future[None]) -> None:
        # The server sends its notifications ahead of the answer.
        link.query("SELECT 1")
        self._handle(link, link.waiting)
        found.set_result(None)

    def _ask(self, name: str, link: Link, found: Future[int]) -> None:
        place, count = self._place, Count(name, found)
        question = payload.Question(count.number, self._answer_channel, name)
        text = payload.of_question(question, place.key)
        ((pids, _),) = link.query(
            f"SELECT (SELECT string_agg(pid::text, ' ') FROM {self._listeners}), "  # noqa: S608
            f"pg_notify('{place.channel}', '{text}')"
        )
        self.counts.expect(count, {int(pid) for pid in (pids or "").split()})

    @property
    def _listeners(self) -> str:
        """The connections that listen, as a part of a query."""
        marker = self._place.marker
        return (
            "pg_stat_activity WHERE datname = current_database() "
            f"AND left(application_name, {len(marker)}) = '{marker}'"
        )

    def _announce(self, texts: list[str], link: Link, told: Future[int]) -> None:
        processes = 0
        for start in range(0, len(texts), _AT_ONCE):
            some = texts[start : start + _AT_ONCE]
            calls = "".join(f", pg_notify('{self._place.channel}', '{text}')" for text in some)
            rows = link.query(f"SELECT (SELECT count(*) FROM {self._listeners}){calls}")  # noqa: S608
            processes = int(rows[0][0] or 0)
        told.set_result(processes)

    def _handle(self, link: Link, most: int) -> None:
        answers: list[str] = []
        for _ in range(most):
            if (notification := link.take()) is None:
                break
            found = payload.read(notification[1], self._place.key)
            if isinstance(found, payload.Message):
                if not self._is_double(found):
                    self._deliver(payload.unpack(found.content))
            elif isinstance(found, payload.Row):
                if not self._is_double(found):
                    self._fetch(link, found)
            elif isinstance(found, payload.Recorded):
                self._deliver_recorded(found)
            elif isinstance(found, payload.Question):
                members = self._backend.groups.count(found.name)
                answer = payload.Answer(found.number, self._pid, members)
                text = payload.of_answer(answer, self._place.key)
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
            self._backend.groups.note("unreadable")
            return False
        # Most processes have no member of most groups: do not check the seal for nothing.
        return not self._wants(*unpacked) or self._backend.deliver(*unpacked)

    def _deliver_recorded(self, found: payload.Recorded) -> None:
        name, envelope = payload.unpack(found.content) or (None, b"")
        if name is None:
            self._backend.groups.note("unreadable")
        elif not self._backend.groups.count(name):
            return
        elif found.is_whole:
            self._backend.deliver_at(name, (found.epoch, found.number), envelope)
        else:
            self._backend.catch_up_soon(name)

    def _fetch(self, link: Link, row: payload.Row) -> None:
        now = monotonic()
        if now >= self._purge_until:
            self._purge_at = now
        self._purge_until = now + table.PURGE_FOR_S
        if not self._wants(row.name, None):
            return
        try:
            rows = link.query(table.select(row.number))
            content = rows[0][0] if rows else None
            reason = "it was changed" if rows else "it is not there"
        except QueryFailed as error:
            content, reason = None, text_of(error)
        if content is None:
            self._backend.groups.note("unreadable")
        if content is None or not self._deliver(payload.unpack(content)):
            _log.error(
                "groups of %r at %s: a message to %r could not be read from the table: %s",
                *(self._backend.alias, self._backend.address, row.name, reason),
            )
            self._backend.groups.note_loss(row.name)
            self._report("interrupted", [row.name])

    def _names(self) -> list[str]:
        """Returns the groups that have members in this process."""
        return [name for name, _ in self._backend.groups.counts()]

    def _report(self, kind: str, texts: list[str]) -> None:
        if kind in ("lost", "regained"):
            self._backend.groups.note(kind)
        reports.report(self._backend, kind, texts)


_listeners: WeakSet[Listener] = WeakSet()


def _leave_parents_connections() -> None:
    for listener in list(_listeners):
        listener.leave()
    _listeners.clear()


at_fork(_leave_parents_connections)
