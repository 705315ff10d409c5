"""Database connections that a view's calls find idle."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import pytest
from django.db import OperationalError, connection, connections, transaction
from peer import LiveWebSocket

from dwebsocket.api.base import own_websocket
from dwebsocket.request import database
from dwebsocket.request.database import OpenConnections
from dwebsocket.telemetry import clock
from dwebsocket.websocket import WebSocket

Open = Callable[..., LiveWebSocket]
Call = Callable[[WebSocket], object]

CALLS: dict[str, Call] = {
    "wait": lambda ws: ws.wait(0.001),
    "read": lambda ws: ws.read(),
    "has_messages": lambda ws: ws.has_messages(),
    "send": lambda ws: ws.send("hello"),
    "send_json": lambda ws: ws.send_json({}),
}


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Let time pass, for connections only."""
    ahead = [clock.now()]

    def pass_(seconds: float) -> None:
        ahead[0] += seconds

    monkeypatch.setattr(database.clock, "now", lambda: ahead[0])
    return pass_


@pytest.fixture
def own(open_websocket: Open) -> Iterator[WebSocket]:
    """The WebSocket whose view runs here."""
    connection.close()
    websocket = open_websocket().websocket
    token = own_websocket.set(websocket)
    yield websocket
    own_websocket.reset(token)
    if websocket._held is not None:
        websocket._held.end()
    connection.close()
    assert connection.execute_wrappers == []


@pytest.fixture
def unusable(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Lose the server behind the connection."""
    return lambda: monkeypatch.setattr(connections["default"], "is_usable", bool)


def failed_query() -> OperationalError:
    """Make a query that fails, and give its exception."""
    with pytest.raises(OperationalError) as caught:
        connection.cursor().execute("SELECT * FROM nowhere")
    return caught.value


def test_views_without_hold_nothing(own: WebSocket) -> None:
    """Most views use no database, and nothing is looked at for them."""
    for call in CALLS.values():
        call(own)
    assert own._held is None


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_each_call_gives_back_what_is_idle(
    own: WebSocket, later: Callable[[float], None], call: Call
) -> None:
    """Three seconds after the last query, and not before."""
    for _ in range(2):
        connection.ensure_connection()
        later(2)
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
        del cursor
        later(2)
        call(own)
        assert connection.connection is not None
        later(2)
        call(own)
        assert connection.connection is None


def test_others_calls_leave_it(
    own: WebSocket, open_websocket: Open, later: Callable[[float], None]
) -> None:
    """A view's calls for other connections do not count, nor do those of other threads."""
    other = open_websocket().websocket
    connection.ensure_connection()
    later(60)
    other.send("hello")
    thread = threading.Thread(target=own.send, args=("hello",))
    thread.start()
    thread.join()
    assert connection.connection is not None


def test_transaction_is_left_alone(own: WebSocket, later: Callable[[float], None]) -> None:
    """However long it takes; its connection is given back behind it."""
    with transaction.atomic():
        later(60)
        own.send("hello")
        assert connection.connection is not None
    later(60)
    own.send("hello")
    assert connection.connection is None


def test_open_cursor_is_left_alone(own: WebSocket, later: Callable[[float], None]) -> None:
    """Its rows may still be read."""
    cursor = connection.cursor()
    cursor.execute("SELECT 1 UNION SELECT 2")
    later(60)
    own.send("hello")
    assert list(cursor.fetchall()) == [(1,), (2,)]
    del cursor
    later(60)
    own.send("hello")
    assert connection.connection is None


def test_closed_cursor_does_not_count(own: WebSocket, later: Callable[[float], None]) -> None:
    """A view has its name for hours; with libraries whose cursors tell that they are closed."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
    cursor.cursor = SimpleNamespace(closed=True)
    later(60)
    own.send("hello")
    assert connection.connection is None


def test_failed_query_does_not_count(own: WebSocket, later: Callable[[float], None]) -> None:
    """The exception may be kept for hours, and with it the cursor of the traceback."""
    kept = failed_query()
    later(60)
    own.send("hello")
    assert connection.connection is None
    assert kept.__traceback__ is not None


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
class TestAfterAnError:
    """Each call of a view does what Django does between two requests."""

    def test_unusable_one_is_closed(
        self, own: WebSocket, unusable: Callable[[], None], call: Call
    ) -> None:
        """The next query opens another one."""
        failed_query()
        unusable()
        call(own)
        assert connection.connection is None
        with connection.cursor() as cursor:
            assert cursor.execute("SELECT 1").fetchone() == (1,)

    def test_usable_one_stays(self, own: WebSocket, call: Call) -> None:
        """However old it is, and it is asked once only."""
        failed_query()
        call(own)
        assert connection.connection is not None
        assert not connection.errors_occurred

    def test_transaction_is_left_alone(
        self, own: WebSocket, unusable: Callable[[], None], call: Call
    ) -> None:
        """The view has yet to roll it back."""
        with transaction.atomic():
            with transaction.atomic(), pytest.raises(OperationalError):
                connection.cursor().execute("SELECT * FROM nowhere")
            unusable()
            call(own)
            assert connection.connection is not None
            transaction.set_rollback(True)


def test_projects_execute_wrappers_stay(own: WebSocket) -> None:
    """A connection that is opened within one of them has ours in front."""
    seen: list[str] = []

    def note(execute: Callable[..., object], sql: str, *rest: object) -> object:
        seen.append(sql)
        return execute(sql, *rest)

    with connection.execute_wrapper(note), connection.cursor() as cursor:
        cursor.execute("SELECT 1")
    with connection.cursor() as cursor:
        cursor.execute("SELECT 2")
    assert seen == ["SELECT 1"]


def test_threads_that_ended_are_forgotten(own: WebSocket) -> None:
    """A helper thread every second must not leave an entry behind each time."""
    held = OpenConnections()

    def ask() -> None:
        connection.ensure_connection()
        held.note(connections["default"])
        connection.close()

    for _ in range(20):
        thread = threading.Thread(target=ask)
        thread.start()
        thread.join()
    assert len(held._uses) <= 1
