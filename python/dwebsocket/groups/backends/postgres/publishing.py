"""Publishing on Django's connection, and so inside of its transaction."""

from __future__ import annotations

import itertools
import os
import secrets
import uuid
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from django import db
from django.conf import settings
from django.db import connections

from dwebsocket.compat.django_commits import after_commit, is_in_transaction
from dwebsocket.compat.system import at_fork, monotonic
from dwebsocket.groups.backends.postgres import history, parameters, payload, table
from dwebsocket.groups.backends.postgres.deadline import Deadline
from dwebsocket.groups.backends.postgres.parameters import text_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.db.backends.base.base import BaseDatabaseWrapper

    from dwebsocket.groups.backends.contract import Backend
    from dwebsocket.groups.backends.postgres.place import Place

# A large message may take longer: for each second so many bytes.
_BYTES_PER_S = 4 * 1024 * 1024
_NO_TABLE = (
    "{what}, and there is no table for it: "
    'put "dwebsocket.groups.postgres" into INSTALLED_APPS and run `manage.py migrate{database}`'
)
# The code of `serialization_failure`.
_OVERTAKEN = "40001"
# The code of `undefined_table`.
_NO_SUCH_TABLE = "42P01"


class Publisher:
    """
    Publishes for one backend. Any thread may use it; each uses its own connection of Django.

    Args:
        backend: The backend.
        place: Has the channel to publish to.
    """

    def __init__(self, backend: Backend, place: Place) -> None:
        self._unavailable = backend.unavailable
        self._database, self._timeout = backend.settings.database, backend.settings.timeout
        self._channel, self._key = place.channel, place.key
        # `NOTIFY` drops a text that equals an earlier one of the same transaction.
        self._start = secrets.token_hex(6)
        self._numbers = itertools.count()
        # The queries whose tables have been found, and when what each of them needs is purged.
        self._found: set[str] = set()
        self._purge_at: dict[str, float] = {}

    def is_in_transaction(self) -> bool:
        """Whether this thread's connection is in a transaction. Opens none."""
        return is_in_transaction(parameters.connection_of(self._database))

    def publish(self, name: str, envelope: bytes) -> None:
        """
        Publishes an envelope, when the present transaction commits, or at once outside one.

        The timeout is a second longer for each 4 MiB.

        Raises:
            GroupUnavailable: The database does not take it within the timeout. A transaction that
                is open cannot go on then.
        """
        publication = self._new_publication()
        content = payload.pack(name, envelope)
        number = secrets.randbits(56)

        def call(connection: BaseDatabaseWrapper, *, is_repeated: bool) -> None:
            message = payload.Message(publication, is_repeated, content)
            text = payload.of_message(message)
            if len(text) <= payload.LONGEST:
                # No parameters: the text and the channel have no quotes.
                self._execute(connection, f"SELECT pg_notify('{self._channel}', '{text}')")
                return
            what = f"a message of {len(envelope)} bytes does not fit into NOTIFY"
            self._need_table(connection, table.EXISTS, what)
            text = payload.of_row(payload.Row(publication, is_repeated, number, name), self._key)
            self._execute(connection, table.publish(number, content, self._channel, text))
            self._purge_soon(connection, table.PURGE)

        self._attempt(call, self._deadline(envelope))

    def text_of(self, name: str, envelope: bytes) -> str:
        """Returns an envelope as ``NOTIFY`` takes it, if it is not too long."""
        publication, content = self._new_publication(), payload.pack(name, envelope)
        return payload.of_message(payload.Message(publication, is_repeated=False, content=content))

    def _new_publication(self) -> str:
        return f"{self._start}-{next(self._numbers):x}"

    def append(self, name: str, envelope: bytes, limits: tuple[int, float]) -> None:
        """
        Publishes for a group with a history: the database numbers it at the commit.

        Arguments as of :meth:`~dwebsocket.groups.HistoryBackend.append`.

        Raises:
            GroupUnavailable: As :meth:`publish`.
        """
        row = history.append(
            uuid.uuid4(), history.key_of(name, self._key), limits, payload.pack(name, envelope)
        )

        def call(connection: BaseDatabaseWrapper, *, is_repeated: bool) -> None:
            self._need_table(connection, history.EXISTS, f"the group {name!r} has a history")
            is_alone = not is_in_transaction(connection)
            more = f"'{self._channel}', {is_alone}) ON CONFLICT DO NOTHING"
            self._execute(connection, row + more)
            self._purge_soon(connection, history.PURGE)

        self._attempt(call, self._deadline(envelope))

    def _deadline(self, envelope: bytes) -> Deadline:
        return Deadline(self._timeout + len(envelope) // _BYTES_PER_S)

    def _attempt(self, call: Callable[..., None], deadline: Deadline) -> None:
        connection = parameters.connection_of(self._database)
        self._leave_parents(connection)
        if connection.health_check_enabled:
            # Else the first cursor of a request does it, and connects again without a limit.
            with deadline.on(connection):
                connection.close_if_health_check_failed()
        # A pool gives connections that may be as old as those of a thread, one after the other.
        is_pooled = bool(connection.settings_dict["OPTIONS"].get("pool"))
        may_repeat, is_repeated = is_pooled or connection.connection is not None, False
        has_looked = False
        while True:
            try:
                if connection.connection is None:
                    with deadline.on_connecting(connection):
                        connection.ensure_connection()
                with deadline.on(connection):
                    call(connection, is_repeated=is_repeated)
                return
            except db.Error as error:
                code, is_alone = _code_of(error), not is_in_transaction(connection)
                if code is None and is_alone and connection.connection is not None:
                    # After a crash of the server psycopg2 does not know it before the next query.
                    with deadline.on(connection):
                        connection.is_usable()
                is_dead = _closes_dead(connection)
                if is_dead and may_repeat and not deadline.is_over and deadline.left:
                    may_repeat, is_repeated = is_pooled, True
                    continue
                if code == _OVERTAKEN and is_alone and deadline.left:
                    # Another transaction has changed the same, which this one was not to see. By
                    # default, or by its settings, a connection may isolate single statements, too.
                    continue
                if code == _NO_SUCH_TABLE:
                    # The next attempt looks for the tables again, and says what is to be done.
                    self._found.clear()
                    if not has_looked and is_alone:
                        has_looked = True
                        continue
                late = f"no answer within {deadline.seconds:g} s"
                raise self._unavailable(late if deadline.is_over else text_of(error)) from error

    def _leave_parents(self, connection: BaseDatabaseWrapper) -> None:
        """
        Makes Django forget a connection that the process has inherited by a fork.

        Two processes that talk on one connection get each other's answers.

        Raises:
            GroupUnavailable: The process was forked inside of a transaction, which is the parent's.
        """
        raw: Any = connection.connection
        if raw is None or not any(raw is each for each in _parents):
            return
        if is_in_transaction(connection):
            raise self._unavailable("the process was forked inside of a transaction")
        connection.connection = None
        with suppress(Exception):
            # Only the descriptor: the library would tell the server that its client is leaving.
            os.close(raw.fileno())

    def _execute(self, connection: BaseDatabaseWrapper, sql: str) -> None:
        with connection.cursor() as cursor:
            cursor.execute(sql)

    def _need_table(self, connection: BaseDatabaseWrapper, exists: str, what: str) -> None:
        """
        Looks for a table, once: an error of the server would end the project's transaction.

        Raises:
            GroupUnavailable: There is none.
        """
        if exists in self._found:
            return
        with connection.cursor() as cursor:
            cursor.execute(exists)
            row = cursor.fetchone()
        if not row or not row[0]:
            database = "" if self._database == "default" else f" --database {self._database}"
            raise self._unavailable(_NO_TABLE.format(what=what, database=database))
        self._found.add(exists)

    def _purge_soon(self, connection: BaseDatabaseWrapper, purge: str) -> None:
        """Purges a table now and then, outside of the project's transaction."""
        now = monotonic()
        due_at = self._purge_at.get(purge, 0.0)
        if now < due_at:
            return
        self._purge_at[purge] = now + table.PURGE_EVERY_S

        def purge_now() -> None:
            own = connections[self._database]
            if own.connection is None:
                return
            with suppress(db.Error), Deadline(self._timeout).on(own):
                self._execute(own, purge)
            # The message was sent: what the project does next must not fail for this.
            _closes_dead(own)

        after_commit(purge_now, self._database, robust=True)


def _closes_dead(connection: BaseDatabaseWrapper) -> bool:
    """Closes a connection that is dead, outside of a transaction: Django would go on using it."""
    # The library itself says so, and asks no server.
    is_dead = bool(getattr(connection.connection, "closed", False))
    if is_dead := is_dead and not is_in_transaction(connection):
        connection.close()
    return is_dead


def _code_of(error: BaseException) -> str | None:
    """Returns the code that the server has given an error; None for one of the library's own."""
    raw = error.__cause__
    return getattr(raw, "sqlstate", None) or getattr(raw, "pgcode", None)


# The connections of the process that forked this one. References keep them from being collected.
_parents: list[Any] = []


def _note_parents() -> None:
    if not settings.configured:
        # So it has no connections.
        return
    _parents.extend(
        connection.connection
        for connection in connections.all(initialized_only=True)
        if connection.connection is not None and connection.vendor == "postgresql"
    )


at_fork(_note_parents)
