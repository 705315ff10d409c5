"""Database connections of views that live for hours."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from django.db import connection, connections, transaction

from dwebsocket.request import database

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    connection.close()
    yield
    connection.close()


class TestThreadsWithout:
    """Most views use no database, and asking Django whether theirs does costs a lot."""

    @pytest.fixture
    def asked(self, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        """Note what Django is asked."""
        asked: list[str] = []
        look = connections.all

        def counted(*args: Any, **kwargs: Any) -> Any:
            asked.append("")
            return look(*args, **kwargs)

        monkeypatch.setattr(connections, "all", counted)
        return asked

    @staticmethod
    def ask() -> None:
        """Do all that asks."""
        database.close_old_connections()
        database.release_idle()
        assert database.shareable() == {}

    def test_do_not_ask(self, asked: list[str]) -> None:
        """They have no connection to close or to share."""
        with ThreadPoolExecutor(1) as pool:
            pool.submit(self.ask).result(10)
        assert asked == []

    def test_others_ask(self, asked: list[str]) -> None:
        """Each time, once a connection has been used."""

        def view() -> None:
            connection.ensure_connection()
            self.ask()
            connection.close()

        with ThreadPoolExecutor(1) as pool:
            pool.submit(view).result(10)
        assert len(asked) == 3

    def test_all_ask_where_it_cannot_be_seen(
        self, asked: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Where Django keeps its connections is not known then."""
        monkeypatch.setattr(connections, "_connections", object())
        assert database._has_any()
        monkeypatch.undo()
        assert asked == []


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
    """A connection in a transaction stays open, whichever code began it."""
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
