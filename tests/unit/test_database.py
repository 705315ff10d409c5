"""Database connections of views that live for hours."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest
from django.db import connection, transaction

from dwebsocket import database

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    connection.close()
    yield
    connection.close()


def test_an_idle_connection_is_closed() -> None:
    """A connection in autocommit is given back, and Django opens it again by itself."""
    connection.ensure_connection()
    database.release_idle()
    assert connection.connection is None
    with connection.cursor() as cursor:
        assert cursor.execute("SELECT 1").fetchone() == (1,)


def test_a_closed_connection_is_not_opened() -> None:
    """Ten thousand views without a connection do not open one just to close it."""
    opened: list[object] = []

    def note(**kwargs: object) -> None:
        opened.append(kwargs)

    from django.db.backends.signals import connection_created

    connection_created.connect(note)
    try:
        database.release_idle()
    finally:
        connection_created.disconnect(note)
    assert opened == []
    assert connection.connection is None


def test_a_transaction_is_left_alone() -> None:
    """What is in a transaction stays, whoever began it."""
    with transaction.atomic():
        database.release_idle()
        assert connection.connection is not None
    connection.set_autocommit(False)
    try:
        database.release_idle()
        assert connection.connection is not None
    finally:
        connection.rollback()
        connection.set_autocommit(True)


def test_only_connections_made_for_sharing_are_shared() -> None:
    """The ordinary connection of a thread is its own."""
    connection.ensure_connection()
    assert database.shareable() == {}
    connection.inc_thread_sharing()
    try:
        assert database.shareable() == {"default": connection}
    finally:
        connection.dec_thread_sharing()


def test_borrowed_connections_are_used_and_forgotten() -> None:
    """Another thread sees the very connection, and afterwards its own again."""
    from django.db import connections

    connection.ensure_connection()
    connection.inc_thread_sharing()
    seen = []

    def view() -> None:
        database.borrow(shared)
        seen.append(connections["default"])
        database.forget(shared)
        seen.append(connections["default"])

    try:
        shared = database.shareable()
        thread = threading.Thread(target=view)
        thread.start()
        thread.join()
        assert seen[0] is shared["default"]
        assert seen[1] is not shared["default"]
    finally:
        connection.dec_thread_sharing()
