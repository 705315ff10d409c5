"""Database connections of views that live for hours, on a PostgreSQL server that has few."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

from support import postgres as database_server
from support.raw_peer import RawPeer, handshake_request
from support.selection import later
from support.server import GUNICORN_GEVENT, GUNICORN_GTHREAD, UVICORN, Kind, Server
from support.waiting import eventually, pause

if TYPE_CHECKING:
    from pathlib import Path

Own = Callable[..., Server]

MOST = 20
# PostgreSQL keeps three for its administrator, and the test has one.
AT_ONCE = 12
WAVES = 3
LONG_S = 60.0

SYNC_VIEWS = ("asks-and-polls", "asks-and-sends", "asks-and-reads")

pytestmark = pytest.mark.needs("postgresql")
on_each = pytest.mark.parametrize("kind", [GUNICORN_GTHREAD, GUNICORN_GEVENT, UVICORN], ids=str)


@pytest.fixture(scope="module")
def few() -> Iterator[Path]:
    """The folder of the socket of a server with `MOST` connections and the project's tables."""
    with database_server.postgres(max_connections=MOST) as folder:
        database_server.migrate(on(folder))
        yield folder


def on(folder: Path, **options: object) -> dict[str, Any]:
    """Return the settings for the server of a folder."""
    database = {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": "postgres",
        "USER": "postgres",
        "HOST": str(folder),
        **options,
    }
    return {
        "DATABASES": {"default": database},
        "SESSION_ENGINE": "django.contrib.sessions.backends.file",
    }


def open_at_once(stack: contextlib.ExitStack, server: Server, path: str) -> list[RawPeer]:
    """Open a wave of views that ask the database, and read their answers."""
    peers = [stack.enter_context(RawPeer(server.address)) for _ in range(AT_ONCE)]
    for peer in peers:
        peer.send(handshake_request(path, server.host))
    for peer in peers:
        assert peer.read_response().status == 101
    assert all(peer.read_message().isdigit() for peer in peers)
    return peers


def visit_in_waves(server: Server, path: str, is_quiet: Callable[[], bool]) -> None:
    """Let far more views ask the database than it has connections, a few at a time."""
    with contextlib.ExitStack() as stack:
        peers: list[RawPeer] = []
        for _ in range(WAVES):
            peers += open_at_once(stack, server, path)
            eventually(is_quiet, LONG_S, "the views have given their connections back")
        assert server.get("/database/counts/").status == 200
        for peer in peers:
            peer.send_close(1000)
            assert peer.read_to_eof().code == 1000


@on_each
@pytest.mark.parametrize("view", [SYNC_VIEWS[0], *later(*SYNC_VIEWS[1:])])
def test_views_give_back_what_is_idle(own_server: Own, few: Path, kind: Kind, view: str) -> None:
    """Whatever they call in the meantime; connections would otherwise last as long as they do."""
    server = own_server(kind, settings=on(few, CONN_MAX_AGE=None))
    with database_server.counter(few) as count:
        # The server's own threads may keep theirs.
        visit_in_waves(server, f"/database/{view}/", lambda: count() <= 3)


def test_views_ask_again(own_server: Own, few: Path) -> None:
    """Django opens a connection again by itself, and that one is given back as well."""
    server = own_server(GUNICORN_GTHREAD, settings=on(few, CONN_MAX_AGE=None))
    with database_server.counter(few) as count, contextlib.ExitStack() as stack:
        peers = open_at_once(stack, server, "/database/asks-and-polls/")
        for _ in range(2):
            eventually(lambda: count() <= 3, LONG_S)
            for peer in peers:
                peer.send_text("how many?")
            assert all(peer.read_message().isdigit() for peer in peers)
        eventually(lambda: count() <= 3, LONG_S)


def test_pool_of_django(own_server: Own, few: Path) -> None:
    """Idle connections go back to the pool, from which others take them."""
    pytest.importorskip("psycopg_pool")
    pool = {"min_size": 0, "max_size": AT_ONCE, "timeout": 60}
    server = own_server(GUNICORN_GTHREAD, settings=on(few, OPTIONS={"pool": pool}))
    with contextlib.ExitStack() as stack:
        for _ in range(WAVES):
            # The pool lets them wait.
            open_at_once(stack, server, "/database/asks-and-polls/")


def test_transaction_keeps_its_connection(own_server: Own, few: Path) -> None:
    """However long the view sends and polls."""
    server = own_server(GUNICORN_GTHREAD, settings=on(few))
    with RawPeer.open(server, "/database/in-transaction/") as peer:
        for _ in range(6):
            assert peer.read_message() == b"tick"
        peer.send_text("the end")
        while (answer := peer.read_message()) == b"tick":
            pass
        assert answer == b"True"


def test_iteration_keeps_its_connection(own_server: Own, few: Path) -> None:
    """A view may send the rows of a query as slowly as it likes."""
    server = own_server(GUNICORN_GTHREAD, settings=on(few))
    with RawPeer.open(server, "/database/while-iterating/") as peer:
        assert [int(peer.read_message()) for _ in range(50)] == list(range(50))
        assert peer.read_to_eof().code == 1000


@pytest.mark.slow
def test_iteration_keeps_its_connection_while_the_view_waits(own_server: Own, few: Path) -> None:
    """For longer than idle connections are kept."""
    server = own_server(GUNICORN_GTHREAD, settings=on(few))
    with server.quiet(), RawPeer.open(server, "/database/waits-while-iterating/") as peer:
        for number in range(5):
            if number == 2:
                pause(4)
            peer.send_text("next")
            assert int(peer.read_message()) == number
        assert peer.read_frame().code == 1000


@on_each
def test_handlers_keep_theirs_for_the_next_message(own_server: Own, few: Path, kind: Kind) -> None:
    """With `CONN_MAX_AGE = 0`, too; they give it back when nothing comes."""
    # Another thread may take a message on a machine that is busy, and has a connection of its own.
    server = own_server(kind, settings={**on(few), "WEBSOCKET_HANDLER_THREADS": 1})
    with database_server.counter(few) as count:
        for view in ("handler", "async-handler"):
            with RawPeer.open(server, f"/database/{view}/") as peer:
                assert len({answer for _ in range(5) for answer in ask([peer])}) == 1
                eventually(lambda: count() == 0, LONG_S)


def test_restart_of_the_database(own_server: Own, few: Path) -> None:
    """One query fails, and the next one has another connection, in views of every kind."""
    kinds = (GUNICORN_GTHREAD, GUNICORN_GEVENT, UVICORN)
    with contextlib.ExitStack() as stack:
        servers = [own_server(kind, settings=on(few, CONN_MAX_AGE=None)) for kind in kinds]
        peers = [
            stack.enter_context(RawPeer.open(server, f"/database/{view}/"))
            for server in servers
            for view in ("asks-despite-errors", "async-asks-despite-errors")
        ]
        assert all(answer.isdigit() for answer in ask(peers))
        # Before the connections are idle for too long.
        with database_server.away(few):
            pass
        ask(peers)
        assert all(answer.isdigit() for answer in ask(peers))


def ask(peers: list[RawPeer]) -> list[bytes]:
    """Ask each view for its users, and give the answers."""
    for peer in peers:
        peer.send_text("how many?")
    return [peer.read_message() for peer in peers]


@on_each
class TestAsyncViews:
    """Each has a thread of its own for the ORM, as long as it needs one."""

    def test_idle_ones_hold_nothing(self, own_server: Own, few: Path, kind: Kind) -> None:
        """A view that waits has neither a connection nor a thread."""
        server = own_server(kind, settings=on(few, CONN_MAX_AGE=None))
        with database_server.counter(few) as count:
            visit_in_waves(server, "/database/async-asks/", lambda: count() <= 3)

    def test_slow_query_holds_up_nobody(self, own_server: Own, few: Path, kind: Kind) -> None:
        """Others are answered long before it is."""
        server = own_server(kind, settings=on(few))
        with RawPeer.open(server, "/database/async-slow/") as slow:
            assert slow.read_message() == b"asking"
            with RawPeer.open(server, "/database/async-asks/") as quick:
                for _ in range(5):
                    assert quick.read_message().isdigit()
                    quick.send_text("how many?")

    def test_end_of_another_view(self, own_server: Own, few: Path, kind: Kind) -> None:
        """It closes its own connection, not the one that this view is reading from."""
        server = own_server(kind, settings=on(few, CONN_MAX_AGE=0))
        with server.quiet(), RawPeer.open(server, "/database/async-iterates/") as iterating:
            for number in range(10):
                iterating.send_text("next")
                assert iterating.read_message() == b"%02d" % number
                with RawPeer.open(server, "/database/async-asks/") as other:
                    assert other.read_message().isdigit()
                    other.send_close(1000)
                    assert other.read_to_eof().code == 1000
            assert iterating.read_frame().code == 1000
            iterating.send_close(1000)
            iterating.read_to_eof()
