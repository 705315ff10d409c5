"""
psycopg2 as a :class:`~dwebsocket.compat.postgresql.Driver`: its documented asynchronous mode.

Versions 2.8 and 2.9. Callbacks such as psycogreen's are not called in this mode.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg2
from psycopg2 import extensions

from dwebsocket.compat.postgresql import Lost, QueryFailed

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dwebsocket.compat.postgresql import Need

_POLLING: dict[int, Need | None] = {
    extensions.POLL_READ: "read",
    extensions.POLL_WRITE: "write",
    extensions.POLL_OK: None,
}
_TEXT = extensions.new_type(extensions.BOOLEAN.values, "TEXT", lambda value, _: value)
# Arguments of `psycopg2.connect` that are not the C library's.
_OTHER = ("connection_factory", "cursor_factory", "async", "async_")


class _Driver:
    def __init__(self, dsn: str) -> None:
        try:
            self._connection: Any = psycopg2.connect(dsn, async_=True)
        except psycopg2.Error as error:
            raise Lost(str(error)) from error
        # As the other library gives them: in the text of the server, "t" or "f".
        extensions.register_type(_TEXT, self._connection)
        self._cursor: Any = None
        # The text of the last query's error: that of a loss begins with it.
        self._failed = ""

    def fileno(self) -> int:
        try:
            descriptor: int = self._connection.fileno()
        except psycopg2.Error as error:
            raise Lost(str(error)) from error
        return descriptor

    def connect(self) -> Need | None:
        try:
            return _POLLING[self._connection.poll()]
        except psycopg2.Error as error:
            raise Lost(str(error)) from error

    def begin(self, sql: str) -> None:
        try:
            self._cursor = self._connection.cursor()
            self._cursor.execute(sql)
        except psycopg2.Error as error:
            raise self._lost(error) from error
        self._failed = ""

    def go_on(self) -> Need | None:
        try:
            return _POLLING[self._connection.poll()]
        except psycopg2.Error as error:
            if self._connection.closed:
                raise self._lost(error) from error
            self._failed = error.pgerror or ""
            raise QueryFailed(str(error)) from error

    def rows(self) -> list[tuple[str | None, ...]]:
        if self._cursor is None or self._cursor.description is None:
            return []
        return [
            tuple(None if value is None else str(value) for value in row)
            for row in self._cursor.fetchall()
        ]

    def take_in(self) -> None:
        try:
            self._connection.poll()
        except psycopg2.Error as error:
            raise self._lost(error) from error

    def _lost(self, error: psycopg2.Error) -> Lost:
        return Lost(str(error).removeprefix(self._failed) or str(error))

    def notifications(self) -> list[tuple[str, str]]:
        found = [(each.channel, each.payload) for each in self._connection.notifies]
        self._connection.notifies.clear()
        return found

    def close(self) -> None:
        self._cursor = None
        self._connection.close()


class _Library:
    def parse(self, dsn: str) -> dict[str, str]:
        try:
            found: dict[str, str] = extensions.parse_dsn(dsn)
        except psycopg2.Error:
            # Not from it: its text has parts of the string.
            raise ValueError("it is no connection string of PostgreSQL") from None
        return found

    def open(self, parameters: Mapping[str, object]) -> _Driver:
        given = {key: value for key, value in parameters.items() if key not in _OTHER}
        try:
            dsn = extensions.make_dsn(**given)
        except psycopg2.Error:
            raise Lost("the parameters of the connection are invalid") from None
        return _Driver(dsn)


LIBRARY = _Library()
