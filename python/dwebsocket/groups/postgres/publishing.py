"""Publishing on Django's connection, and so inside of its transaction."""

from __future__ import annotations

import itertools
import os
import secrets
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from django import db
from django.db import connections, transaction

from dwebsocket.groups.postgres import parameters, payload, table
from dwebsocket.groups.postgres.limit import Limit

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.db.backends.base.base import BaseDatabaseWrapper

# A large message may take longer: for each second so many bytes.
_BYTES_PER_S = 4 * 1024 * 1024
_NO_TABLE = (
    "a message of {size} bytes does not fit into NOTIFY, and there is no table for it: "
    'put "dwebsocket" into INSTALLED_APPS and run `manage.py migrate{database}`'
)


class CannotPublish(Exception):
    """The database does not take a message now. The text says why."""


class Publisher:
    """
    Publishes for one backend. Any thread may use it; each uses its own connection of Django.

    Args:
        database: The alias in ``DATABASES``.
        channel: The project's.
        key: For :mod:`~dwebsocket.groups.postgres.payload`.
        timeout: The seconds that a call may take.
    """

    def __init__(self, database: str, channel: str, key: bytes, timeout: float) -> None:
        self._database = database
        self._channel = channel
        self._key = key
        self._timeout = timeout
        # `NOTIFY` drops a text that equals an earlier one of the same transaction.
        self._start = secrets.token_hex(6)
        self._numbers = itertools.count()
        self._has_table = False
        self._purge_at = 0.0

    def is_in_transaction(self) -> bool:
        """Whether this thread's connection is in a transaction. Opens none."""
        connection: BaseDatabaseWrapper = parameters.connection_of(self._database)
        return connection.connection is not None and _in_transaction(connection)

    def publish(self, name: str, envelope: bytes) -> None:
        """
        Publishes an envelope, when the present transaction commits, or at once outside one.

        The timeout is a second longer for each 4 MiB.

        Raises:
            CannotPublish: The database does not take it within the timeout. A transaction that is
                open cannot go on then.
        """
        publication = f"{self._start}-{next(self._numbers):x}"
        content = payload.pack(name, envelope)
        number = secrets.randbits(56)

        def call(connection: BaseDatabaseWrapper, *, is_repeated: bool) -> None:
            message = payload.Message(publication, is_repeated, content)
            text = payload.of_message(message)
            if len(text) <= payload.LONGEST:
                # No parameters: the text and the channel have no quotes.
                self._execute(connection, f"SELECT pg_notify('{self._channel}', '{text}')")
                return
            self._need_table(connection, len(envelope))
            text = payload.of_row(payload.Row(publication, is_repeated, number, name), self._key)
            self._execute(connection, table.publish(number, content, self._channel, text))
            self._purge_soon(connection)

        self._attempt(call, Limit(self._timeout + len(envelope) // _BYTES_PER_S))

    def _attempt(self, call: Callable[..., None], limit: Limit) -> None:
        connection: BaseDatabaseWrapper = parameters.connection_of(self._database)
        _leave_parents(connection)
        was_open = connection.connection is not None
        try:
            self._call(connection, call, limit, is_repeated=False)
        except db.Error as error:
            is_dead = _is_dead(connection)
            if is_dead and not _in_transaction(connection):
                # Django would go on using it.
                connection.close()
                if was_open and not limit.is_over and limit.left:
                    self._repeat(connection, call, limit)
                    return
            raise CannotPublish(self._reason(error, limit)) from error

    def _repeat(
        self, connection: BaseDatabaseWrapper, call: Callable[..., None], limit: Limit
    ) -> None:
        try:
            self._call(connection, call, limit, is_repeated=True)
        except db.Error as error:
            if _is_dead(connection):
                connection.close()
            raise CannotPublish(self._reason(error, limit)) from error

    def _call(
        self,
        connection: BaseDatabaseWrapper,
        call: Callable[..., None],
        limit: Limit,
        *,
        is_repeated: bool,
    ) -> None:
        if connection.connection is None:
            with limit.on_connecting(connection):
                connection.ensure_connection()
        with limit.on(connection):
            call(connection, is_repeated=is_repeated)

    def _reason(self, error: db.Error, limit: Limit) -> str:
        if limit.is_over:
            return f"no answer within {limit.seconds:g} s"
        return " ".join(str(error).split()) or type(error).__name__

    def _execute(self, connection: BaseDatabaseWrapper, sql: str) -> None:
        with connection.cursor() as cursor:
            cursor.execute(sql)

    def _need_table(self, connection: BaseDatabaseWrapper, size: int) -> None:
        """
        Looks for the table, once: an error of the server would end the project's transaction.

        Raises:
            CannotPublish: There is none.
        """
        if self._has_table:
            return
        with connection.cursor() as cursor:
            cursor.execute(table.EXISTS)
            row = cursor.fetchone()
        if not row or not row[0]:
            database = "" if self._database == "default" else f" --database {self._database}"
            raise CannotPublish(_NO_TABLE.format(size=size, database=database))
        self._has_table = True

    def _purge_soon(self, connection: BaseDatabaseWrapper) -> None:
        """Purges the table now and then, outside of the project's transaction."""
        now = time.monotonic()
        if now < self._purge_at or not (connection.in_atomic_block or connection.autocommit):
            return
        self._purge_at = now + table.PURGE_EVERY_S
        transaction.on_commit(self._purge, using=self._database, robust=True)

    def _purge(self) -> None:
        connection = connections[self._database]
        if connection.connection is not None:
            with suppress(db.Error), Limit(self._timeout).on(connection):
                self._execute(connection, table.PURGE)


def _in_transaction(connection: BaseDatabaseWrapper) -> bool:
    return connection.in_atomic_block or not connection.autocommit


def _is_dead(connection: BaseDatabaseWrapper) -> bool:
    """Whether the library itself says that the connection is closed. Asks no server."""
    raw: Any = connection.connection
    return raw is not None and bool(getattr(raw, "closed", False))


# The connections of the process that forked this one. References keep them from being collected.
_parents: list[Any] = []


def _note_parents() -> None:
    _parents.extend(
        connection.connection
        for connection in connections.all(initialized_only=True)
        if connection.connection is not None and connection.vendor == "postgresql"
    )


def _leave_parents(connection: BaseDatabaseWrapper) -> None:
    """
    Makes Django forget a connection that the process has inherited by a fork.

    Two processes that talk on one connection get each other's answers.

    Raises:
        CannotPublish: The process was forked inside of a transaction, which is the parent's.
    """
    raw: Any = connection.connection
    if raw is None or not any(raw is each for each in _parents):
        return
    if _in_transaction(connection):
        raise CannotPublish("the process was forked inside of a transaction")
    connection.connection = None
    with suppress(Exception):
        # Only the descriptor: the library would tell the server that its client is leaving.
        os.close(raw.fileno())


os.register_at_fork(after_in_child=_note_parents)
