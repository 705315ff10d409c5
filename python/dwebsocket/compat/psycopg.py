"""
psycopg 3 as a :class:`~dwebsocket.compat.postgresql.Driver`: its documented module ``psycopg.pq``.

Versions 3.1 to 3.3.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
from psycopg import conninfo, pq

from dwebsocket.compat.postgresql import Lost, QueryFailed

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dwebsocket.compat.postgresql import Need

_POLLING: dict[int, Need | None] = {
    pq.PollingStatus.READING: "read",
    pq.PollingStatus.WRITING: "write",
    pq.PollingStatus.OK: None,
}
_DONE = (pq.ExecStatus.TUPLES_OK, pq.ExecStatus.COMMAND_OK)


class _Driver:
    def __init__(self, dsn: str) -> None:
        try:
            self._pgconn = pq.PGconn.connect_start(dsn.encode())
        except psycopg.Error as error:
            raise Lost(str(error)) from error
        self._results: list[pq.abc.PGresult] = []
        self._is_sending = False
        # The text of the last query's error: the library's own begins with it.
        self._failed = ""

    def fileno(self) -> int:
        try:
            return self._pgconn.socket
        except psycopg.Error as error:
            raise self._lost(error) from error

    def connect(self) -> Need | None:
        try:
            status = self._pgconn.connect_poll()
        except psycopg.Error as error:
            raise self._lost(error) from error
        if status not in _POLLING:
            raise self._lost()
        need = _POLLING[status]
        if need is None:
            self._pgconn.nonblocking = 1
        return need

    def begin(self, sql: str) -> None:
        self._results, self._failed = [], ""
        try:
            self._pgconn.send_query(sql.encode())
        except psycopg.Error as error:
            raise self._lost(error) from error
        self._is_sending = True

    def go_on(self) -> Need | None:
        try:
            if not self._is_sending:
                self._pgconn.consume_input()
            elif self._pgconn.flush():
                return "write"
            self._is_sending = False
            while not self._pgconn.is_busy():
                result = self._pgconn.get_result()
                if result is None:
                    break
                self._results.append(result)
            else:
                return "read"
        except psycopg.Error as error:
            raise self._lost(error) from error
        if self._pgconn.status != pq.ConnStatus.OK:
            raise self._lost()
        for result in self._results:
            if result.status not in _DONE:
                self._failed = _text(result.error_message)
                raise QueryFailed(self._failed)
        return None

    def rows(self) -> list[tuple[str | None, ...]]:
        if not self._results:
            return []
        result = self._results[-1]

        def value(row: int, column: int) -> str | None:
            found = result.get_value(row, column)
            return None if found is None else found.decode()

        columns = range(result.nfields)
        return [tuple(value(row, column) for column in columns) for row in range(result.ntuples)]

    def take_in(self) -> None:
        try:
            self._pgconn.consume_input()
            # Without a query there is a result only when the server has ended the connection.
            if not self._pgconn.is_busy() and (result := self._pgconn.get_result()) is not None:
                raise Lost(_text(result.error_message))
        except psycopg.Error as error:
            raise self._lost(error) from error
        if self._pgconn.status != pq.ConnStatus.OK:
            raise self._lost()

    def notifications(self) -> list[tuple[str, str]]:
        found = []
        while (notify := self._pgconn.notifies()) is not None:
            found.append((_text(notify.relname), _text(notify.extra)))
        return found

    def close(self) -> None:
        self._results = []
        self._pgconn.finish()

    def _lost(self, error: psycopg.Error | None = None) -> Lost:
        text = _text(self._pgconn.error_message).removeprefix(self._failed)
        return Lost(text or str(error or "the connection was closed"))


def _text(found: bytes | None) -> str:
    return (found or b"").decode("utf-8", "replace")


class _Library:
    def parse(self, dsn: str) -> dict[str, str]:
        try:
            found = conninfo.conninfo_to_dict(dsn)
        except psycopg.Error:
            # Not from it: its text has parts of the string.
            raise ValueError("it is no connection string of PostgreSQL") from None
        return {key: str(value) for key, value in found.items() if value is not None}

    def open(self, parameters: Mapping[str, object]) -> _Driver:
        known = {option.keyword.decode() for option in pq.Conninfo.get_defaults()}
        given = {
            key: value for key, value in parameters.items() if key in known and value is not None
        }
        try:
            dsn = conninfo.make_conninfo("", **given)  # type: ignore[arg-type]
        except psycopg.Error:
            raise Lost("the parameters of the connection are invalid") from None
        return _Driver(dsn)


LIBRARY = _Library()
