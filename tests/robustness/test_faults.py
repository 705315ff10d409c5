"""
Faults around a server: clients, descriptors, threads, the database.

Each fault is real, in real processes. While it lasts it affects only the clients that depend on the
faulty part; afterwards the same worker serves as before.
"""

from __future__ import annotations

import contextlib
import resource
import signal
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support import postgres as database_server
from support.namespace import namespace
from support.raw_peer import (
    BINARY,
    CLOSE,
    PING,
    PONG,
    TEXT,
    RawPeer,
    build_frame,
    handshake_request,
)
from support.server import (
    GUNICORN_GTHREAD,
    GUNICORN_SYNC,
    RUNSERVER,
    UVICORN,
    Server,
    descriptors,
)
from support.users import sign_in
from support.waiting import eventually

pytestmark = pytest.mark.extended("takes away files, packets and databases")

Own = Callable[..., Server]

MEBIBYTE = 1 << 20
MEMORY = 48 * MEBIBYTE

on_main = pytest.mark.parametrize("server", [GUNICORN_SYNC, UVICORN], indirect=True, ids=str)
on_both = pytest.mark.parametrize("kind", [GUNICORN_SYNC, UVICORN], ids=str)


def resident_bytes(pid: int) -> int:
    """Return a process's resident memory."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096


def address_space(pid: int) -> int:
    """Return the size of a process's address space."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[0]) * 4096


def converses(server: Server, path: str = "/echo/", *, turns: int = 1) -> None:
    """See that another client is served."""
    with RawPeer.open(server, path) as peer:
        for turn in range(turns):
            peer.send_text(f"turn {turn}")
            assert peer.read_message() == b"turn %d" % turn


@contextlib.contextmanager
def limited(pid: int, which: int, limit: int) -> Iterator[None]:
    """Let a process have less of something for a while."""
    _, hard = before = resource.prlimit(pid, which)
    resource.prlimit(pid, which, (limit, hard))
    try:
        yield
    finally:
        resource.prlimit(pid, which, before)


def flood(peer: RawPeer, block: bytes, total: int) -> None:
    """Write as fast as the server takes it; the server may hang up, or stop reading."""
    peer.sock.settimeout(1)
    with contextlib.suppress(ConnectionError, TimeoutError):
        for _ in range(total // len(block)):
            peer.send(block)


@contextlib.contextmanager
def talking(url: str, *prefix: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a client in a process of its own that has just had an answer, and sends no more."""
    program = (
        "import sys, time; from websockets.sync.client import connect\n"
        "with connect(sys.argv[1], origin=None, proxy=None) as ws:\n"
        "    ws.send('hello'); print(ws.recv(), flush=True); time.sleep(60)"
    )
    command = [*prefix, sys.executable, "-c", program, url]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as client:
        try:
            assert client.stdout is not None
            assert client.stdout.readline()
            yield client
        finally:
            client.kill()


class TestClients:
    """Clients that vanish, stop, or do too much."""

    @on_main
    def test_reset_within_a_message(self, server: Server) -> None:
        """In the middle of a frame, and between two frames of one message."""
        with server.nothing_left(), contextlib.ExitStack() as stack:
            for start in (
                build_frame(TEXT, b"never whole")[:-3],
                build_frame(TEXT, b"a", fin=False),
            ):
                peer = stack.enter_context(RawPeer.open(server, "/echo/"))
                peer.send(start)
                converses(server)
                peer.vanish()

    @on_main
    def test_stopped_process(self, server: Server) -> None:
        """A client that is there and says nothing is found out by the next ping."""
        if server.kind == UVICORN:
            pytest.xfail("the server pings on its own terms, every 20 s")
        with contextlib.ExitStack() as stack, server.nothing_left():
            # It outlives the look at what is left: its own end would leave nothing, too.
            client = stack.enter_context(talking(server.url("/impatient/")))
            client.send_signal(signal.SIGSTOP)

    def test_dropped_packets(self, own_server: Own) -> None:
        """A network that goes away takes its clients along, within a ping and its timeout."""
        with namespace() as elsewhere, contextlib.ExitStack() as stack:
            server = own_server(
                GUNICORN_SYNC,
                options=("--bind", f"{elsewhere.here}:8000"),
                settings={"ALLOWED_HOSTS": ["*"]},
            )
            url = f"ws://{elsewhere.here}:8000/impatient/"
            with server.nothing_left():
                stack.enter_context(talking(url, *elsewhere.command))
                elsewhere.cut()

    @on_main
    def test_slow_reader_beside_others(self, server: Server) -> None:
        """It costs its outbox of 1 MiB, and none of two hundred others waits for it."""
        with RawPeer.open_many(server, "/echo/", 200, at_once=4) as peers:

            def all_served(turns: int) -> None:
                for turn in range(turns):
                    for peer in peers:
                        peer.send_text(f"turn {turn}")
                    for peer in peers:
                        assert peer.read_message() == b"turn %d" % turn

            all_served(2)
            before = resident_bytes(server.worker)
            with RawPeer.open(server, "/pours/", receive_buffer=4096) as slow:
                all_served(10)
                assert resident_bytes(server.worker) - before < 8 * MEBIBYTE
                slow.vanish()

    @on_main
    @pytest.mark.parametrize(
        ("block", "total"),
        [
            (build_frame(PING, b"?") * 1000, 64 * MEBIBYTE),
            (build_frame(BINARY, b"") * 1000, 16 * MEBIBYTE),
        ],
        ids=["pings", "tiny messages"],
    )
    def test_flood(self, server: Server, block: bytes, total: int) -> None:
        """From a client that does not read what it gets: bounded memory, and others are served."""
        server.warm_up()
        if server.kind == UVICORN and block.startswith(build_frame(PING, b"?")):
            pytest.xfail("the server answers pings itself, and does little else meanwhile")
        before = resident_bytes(server.worker)
        with RawPeer.open(server, "/echo/", receive_buffer=4096) as peer:
            flooding = threading.Thread(target=flood, args=(peer, block, total))
            flooding.start()
            converses(server, turns=20)
            flooding.join()
            assert resident_bytes(server.worker) - before < MEMORY
            peer.vanish()
        converses(server)

    def test_pings_are_answered_while_they_flood(self, server: Server) -> None:
        """A client that reads gets its answers, the last one certainly."""
        with RawPeer.open(server, "/echo/") as peer:
            peer.send(b"".join(build_frame(PING, b"%d" % number) for number in range(2000)))
            while (frame := peer.read_frame()).payload != b"1999":
                assert frame.opcode == PONG

    @pytest.mark.parametrize("server", [RUNSERVER, UVICORN], indirect=True, ids=str)
    def test_handshakes_without_an_end(self, server: Server) -> None:
        """Where a server reads them side by side, no other client waits, and nothing is left."""
        head = handshake_request("/echo/", server.host)[:-2]
        with server.nothing_left(), contextlib.ExitStack() as stack:
            for _ in range(100):
                stack.enter_context(RawPeer(server.address)).send(head)
            converses(server, turns=5)


class TestScarcity:
    """Resources that the system does not give."""

    def test_descriptors(self, own_server: Own) -> None:
        """New clients are refused; open connections go on, and so does the site."""
        server = own_server(GUNICORN_GTHREAD)
        server.warm_up()
        server.at_rest()
        worker = server.worker
        with contextlib.ExitStack() as stack:
            with limited(worker, resource.RLIMIT_NOFILE, len(descriptors(worker)) + 20):
                there, refused = [], 0
                while refused < 5:
                    peer = stack.enter_context(RawPeer(server.address))
                    if asked(peer, server) == 101:
                        there.append(peer)
                    else:
                        # By us, with 503; or by the server, which needs one itself.
                        refused += 1
                assert there
                for peer in there:
                    peer.send_text("still here")
                    assert peer.read_message() == b"still here"
                there.pop().vanish()
                there.pop().vanish()
                eventually(lambda: asked_anew(server) == 101, 60)
        converses(server)
        assert server.worker == worker
        assert "The system has nothing left for another connection" in server.stderr()

    def test_threads(self, own_server: Own) -> None:
        """The client gets 503 with Retry-After, and is served later."""
        server = own_server(GUNICORN_SYNC)
        server.warm_up()
        server.at_rest()
        worker = server.worker
        with contextlib.ExitStack() as stack:
            with limited(worker, resource.RLIMIT_AS, address_space(worker) + 64 * MEBIBYTE):
                codes = []
                for _ in range(30):
                    peer = stack.enter_context(RawPeer.open(server, "/waits/"))
                    converse = RawPeer(server.address)
                    stack.enter_context(converse)
                    converse.send(handshake_request("/echo/", server.host))
                    assert converse.read_response().status == 101
                    converse.send_text("hello")
                    frame = converse.read_frame()
                    if frame.opcode == CLOSE:
                        codes.append(frame.code)
                        break
                    assert frame.payload == b"hello"
                assert codes == [1013]
                # Open connections are still served.
                peer.close()
        eventually(lambda: server.get("/status/").status == 200, 60)
        converses(server)
        assert server.worker == worker
        assert "No thread for another WebSocket view" in server.stderr()


def asked(peer: RawPeer, server: Server) -> int | None:
    """Return the status of a handshake, None if the server hangs up."""
    peer.send(handshake_request("/echo/", server.host))
    while b"\r\n\r\n" not in peer.buffer:
        if not peer._fill():
            return None
    return peer.read_response().status


def asked_anew(server: Server) -> int | None:
    """Return the status of a handshake on a connection of its own."""
    with RawPeer(server.address) as peer:
        return asked(peer, server)


@contextlib.contextmanager
def no_database(server: Server) -> Iterator[None]:
    """Take the database away, and bring it back."""
    away = server.database.with_suffix(".away")
    server.database.rename(away)
    # Or SQLite would begin a new one.
    server.database.mkdir()
    try:
        yield
    finally:
        server.database.rmdir()
        away.rename(server.database)


class TestDatabase:
    """Sessions and rows that cannot be had for a while."""

    @on_both
    def test_goes_and_comes_back(self, own_server: Own, kind: object) -> None:
        """Under views, under sessions, and under the handshakes of users."""
        server = own_server(kind)
        mine = sign_in(server)
        with contextlib.ExitStack() as stack:
            asking = stack.enter_context(RawPeer.open(server, "/asks-database/"))
            keeping = stack.enter_context(RawPeer.open(server, "/session-write/", headers=mine))
            asking.send_text("how many?")
            assert asking.read_message() == b"1"
            with no_database(server):
                asking.send_text("how many?")
                assert asking.read_message() == b"OperationalError"
                # Users cannot be looked up; all other clients are served.
                with RawPeer(server.address) as peer:
                    peer.send(handshake_request("/echo/", server.host, headers=mine))
                    assert peer.read_response().status == 500
                converses(server)
                keeping.send_text("keep this")
                assert keeping.read_message() == b"kept"
                assert keeping.read_frame().code == 1011
            asking.send_text("how many?")
            assert asking.read_message() == b"1"
            with RawPeer.open(server, "/request-facts/1/", headers=mine) as peer:
                assert b'"user": "mia"' in peer.read_message()


@pytest.fixture(scope="module")
def postgres() -> Iterator[Path]:
    """The folder of a PostgreSQL server's socket, with the test project's tables."""
    with database_server.postgres() as folder:
        database_server.migrate({"DATABASES": on_postgresql(folder)})
        yield folder


def on_postgresql(folder: Path) -> dict[str, dict[str, object]]:
    """Return the setting for the server of a folder: connections last, and so do commits."""
    return {
        "default": {
            "ENGINE": "django.db.backends.postgresql",
            "NAME": "postgres",
            "USER": "postgres",
            "HOST": str(folder),
            "CONN_MAX_AGE": None,
            "CONN_HEALTH_CHECKS": True,
            "OPTIONS": {"options": "-c synchronous_commit=on"},
        }
    }


@pytest.mark.needs("postgresql")
class TestDatabaseServer:
    """One that goes down at once, with all its connections, and comes back."""

    @pytest.mark.parametrize("kind", [GUNICORN_GTHREAD, UVICORN], ids=str)
    def test_restart_under_views(self, own_server: Own, kind: object, postgres: Path) -> None:
        """Views that query it meanwhile get an error, views that query before or after do not."""
        server = own_server(kind, settings={"DATABASES": on_postgresql(postgres)})
        mine = sign_in(server)
        with contextlib.ExitStack() as stack:
            careful = stack.enter_context(RawPeer.open(server, "/keeps-database/", headers=mine))
            careless = stack.enter_context(RawPeer.open(server, "/orm/"))
            careful.send_text("how many?")
            assert careful.read_message().isdigit()
            # The server is that of other tests, too.
            number = uuid.uuid4().hex
            careless.send_text(f"ida {number}")
            assert careless.read_message() == b'{"there": 1}'
            with database_server.away(postgres):
                careful.send_text("how many?")
                assert careful.read_message() == b"OperationalError"
                careless.send_text(f"max {number}")
                assert careless.read_to_eof().code == 1011
                converses(server)
            careful.send_text("how many?")
            assert careful.read_message().isdigit()
            with RawPeer.open(server, "/request-facts/1/", headers=mine) as peer:
                assert b'"user": "mia"' in peer.read_message()

    def test_restart_while_views_wait(self, own_server: Own, postgres: Path) -> None:
        """A view that waits holds no connection, so there is nothing to lose."""
        settings = {"DATABASES": on_postgresql(postgres)}
        server = own_server(GUNICORN_GTHREAD, settings=settings)
        with RawPeer.open(server, "/keeps-database/") as peer:
            peer.send_text("how many?")
            answer = peer.read_message()
            with database_server.counter(postgres) as count:
                eventually(lambda: count() == 0, 60, "the view has given its connection back")
            with database_server.away(postgres):
                pass
            peer.send_text("how many?")
            assert peer.read_message() == answer


class TestSessionsOnDisk:
    """The folder of file-based sessions, which may be on a disk of its own."""

    @on_both
    def test_gone_and_back(self, own_server: Own, kind: object, tmp_path: Path) -> None:
        """No user is signed in meanwhile, nothing is kept; open connections go on."""
        folder, elsewhere = tmp_path / "sessions", tmp_path / "elsewhere"
        folder.mkdir()
        settings = {
            "SESSION_ENGINE": "django.contrib.sessions.backends.file",
            "SESSION_FILE_PATH": str(folder),
        }
        server = own_server(kind, settings=settings)
        mine = sign_in(server)

        def user() -> bytes:
            with RawPeer.open(server, "/request-facts/1/", headers=mine) as peer:
                return peer.read_message()

        assert b'"user": "mia"' in user()
        with contextlib.ExitStack() as stack:
            there = stack.enter_context(RawPeer.open(server, "/echo/", headers=mine))
            keeping = stack.enter_context(RawPeer.open(server, "/session-write/", headers=mine))
            folder.rename(elsewhere)
            # Not even root can open a file in what is no folder.
            folder.write_bytes(b"")
            assert b'"user": "AnonymousUser"' in user()
            there.send_text("still here")
            assert there.read_message() == b"still here"
            keeping.send_text("keep this")
            assert keeping.read_message() == b"kept"
            assert keeping.read_frame().code == 1011
            folder.unlink()
            elsewhere.rename(folder)
            assert b'"user": "mia"' in user()
            there.send_text("still here")
            assert there.read_message() == b"still here"


class TestSignedOut:
    """Across requests of one process."""

    @on_main
    def test_logout_closes(self, server: Server) -> None:
        """A page that logs out takes the session's WebSockets along, and no other's."""
        mine, other = sign_in(server), sign_in(server)
        with (
            RawPeer.open(server, "/echo/", headers=mine) as here,
            RawPeer.open(server, "/async-echo/", headers=mine) as too,
            RawPeer.open(server, "/echo/", headers=other) as elsewhere,
        ):
            assert server.get("/log-out/", mine).status == 200
            assert [peer.read_frame().code for peer in (here, too)] == [4401, 4401]
            elsewhere.send_text("still here")
            assert elsewhere.read_message() == b"still here"
