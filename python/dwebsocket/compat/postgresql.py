"""
A connection to PostgreSQL that never sleeps, on psycopg 3 or psycopg2, whichever Django uses.

The calls of both libraries that wait use what gevent, eventlet or psycogreen have patched. A thread
of the system that waits by itself needs the parts below: :class:`Driver` says what they do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

    #: The readiness of the socket that the next step needs.
    Need = Literal["read", "write"]


class Lost(Exception):
    """The connection was lost, or could not be made. The text says why."""


class QueryFailed(Exception):
    """The server refused a query. The connection stays usable."""


class Driver(Protocol):
    """
    One connection, in steps that never sleep. For one thread.

    Each step gives what the socket has to be ready for before it is repeated, and None when it is
    done. Every call may raise :class:`Lost`.
    """

    def fileno(self) -> int:
        """The descriptor, which may change until the connection is made."""

    def connect(self) -> Need | None:
        """One step towards the connection."""

    def begin(self, sql: str) -> None:
        """Begins a query. None may be under way."""

    def go_on(self) -> Need | None:
        """
        One step of the query.

        Raises:
            QueryFailed: The server refused it.
        """

    def rows(self) -> list[tuple[str | None, ...]]:
        """The result of the query that is done, in the server's texts."""

    def take_in(self) -> None:
        """Reads what the server has sent beside queries."""

    def notifications(self) -> list[tuple[str, str]]:
        """Takes the notifications that were read: channels and payloads."""

    def close(self) -> None:
        """Ends the connection. Raises nothing."""


class Library(Protocol):
    """The calls that differ between psycopg 3 and psycopg2."""

    def parse(self, dsn: str) -> dict[str, str]:
        """
        Returns the parameters of a connection string.

        Raises:
            ValueError: It is none. The text says nothing of its content, such as a password.
        """

    def open(self, parameters: Mapping[str, object]) -> Driver:
        """
        Begins a connection; parameters that are not the C library's are left out.

        Raises:
            Lost: It cannot be made.
        """
