"""Database connections of a view that lives for hours."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from django import db
from django.db import connections

from dwebsocket.compat.django import has_connections as _has_any
from dwebsocket.compat.django_auth import is_in_transaction

if TYPE_CHECKING:
    from collections.abc import Iterator

    from django.db.backends.base.base import BaseDatabaseWrapper

__all__ = [
    "borrow",
    "close_old_connections",
    "forget",
    "in_transaction",
    "in_use",
    "release_idle",
    "shareable",
]


def close_old_connections() -> None:
    """As Django's own, which it calls before and after each request."""
    if _has_any():
        db.close_old_connections()


def release_idle() -> None:
    """
    Closes this thread's database connections that are in no transaction.

    Django opens them again by itself. Ten thousand views that wait must not hold ten thousand
    connections of the database server.
    """
    if not _has_any():
        return
    for connection in connections.all(initialized_only=True):
        # Not `get_autocommit()`: it would open a connection that is closed.
        if connection.autocommit and not connection.in_atomic_block:
            connection.close()


def in_transaction() -> bool:
    """Whether this thread is in a transaction, the one around a test case not counted."""
    if not _has_any():
        return False
    return any(map(is_in_transaction, connections.all(initialized_only=True)))


def shareable() -> dict[str, BaseDatabaseWrapper]:
    """
    Gives this thread's connections that Django allows other threads to use.

    Those are the connections of a live test server's SQLite database in memory, which another
    thread could not see otherwise.
    """
    if not _has_any():
        return {}
    return {
        connection.alias: connection
        for connection in connections.all(initialized_only=True)
        if connection.allow_thread_sharing
    }


def borrow(shared: dict[str, BaseDatabaseWrapper]) -> None:
    """Makes this thread use the connections of another, as :func:`shareable` gave them."""
    for alias, connection in shared.items():
        connections[alias] = connection


def forget(shared: dict[str, BaseDatabaseWrapper]) -> None:
    """Takes back :func:`borrow`."""
    for alias in shared:
        del connections[alias]


@contextmanager
def in_use(shared: dict[str, BaseDatabaseWrapper]) -> Iterator[None]:
    """Cares for this thread's connections around a piece of work, as Django does for a request."""
    close_old_connections()
    borrow(shared)
    try:
        yield
    finally:
        forget(shared)
        close_old_connections()
