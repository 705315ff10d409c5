"""
Connections leave nothing behind in the server's process.

Descriptors and threads are counted from outside, in /proc, before and after.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest

from support.clients import websocket
from support.idle import outlive
from support.raw_peer import CLOSE, PING, PONG, RawPeer
from support.selection import later
from support.server import (
    ASGI,
    EVENTLET_PLAIN,
    GEVENT_PLAIN,
    GUNICORN_EVENTLET,
    GUNICORN_GEVENT,
    GUNICORN_GTHREAD,
    GUNICORN_SYNC,
    NATIVE,
    SERVERS,
    Kind,
    Server,
)
from support.waiting import eventually, pause
from support.wsgi_kinds import WSGI_SERVERS

if TYPE_CHECKING:
    from collections.abc import Callable

everywhere = pytest.mark.parametrize(
    "server", [*SERVERS, *WSGI_SERVERS, *ASGI, *NATIVE], indirect=True, ids=str
)

# A view of each kind: waiting, pushing, ignoring the connection, waiting for the end.
VIEWS = ["/echo/", "/waits/", "/push/", "/never-read/", "/echo-exact/"]


def close_frame(peer: RawPeer) -> None:
    """End with a closing handshake."""
    peer.send_close()
    while peer.read_frame().opcode != CLOSE:
        pass
    peer.close()


WAYS_TO_GO: dict[str, Callable[[RawPeer], None]] = {
    "close frame": close_frame,
    "FIN": RawPeer.close,
    "RST": RawPeer.vanish,
}


@everywhere
class TestNothingLeft:
    """Five seconds after the last client the process is as it was."""

    @pytest.mark.parametrize("way", WAYS_TO_GO)
    def test_clients_go(self, server: Server, way: str) -> None:
        """Whatever the view does, the client's end is noticed and the view's thread goes."""
        if server.kind in (GEVENT_PLAIN, EVENTLET_PLAIN):
            pytest.xfail("without monkey patching a view that sleeps stops its whole hub")
        with server.quiet(), server.nothing_left(), contextlib.ExitStack() as stack:
            peers = [
                peer
                for path in VIEWS
                for peer in stack.enter_context(RawPeer.open_many(server, path, 5))
            ]
            for peer in peers:
                WAYS_TO_GO[way](peer)

    def test_views_end(self, server: Server) -> None:
        """Connections that the server ends leave nothing, also when the client answers nothing."""
        with server.nothing_left(), contextlib.ExitStack() as stack:
            peers = [
                peer
                for path in ("/returns-at-once/", "/closes-first/", "/missing/")
                for peer in stack.enter_context(RawPeer.open_many(server, path, 5))
            ]
            assert {peer.read_to_eof().code for peer in peers} == {1000, 4001, 4404}

    def test_clients_come_and_go(self, server: Server) -> None:
        """A hundred short conversations, one after the other."""
        with server.quiet(), server.nothing_left():
            for number in range(100):
                with websocket(server, "/echo/") as client:
                    client.send(str(number))
                    assert client.recv(20) == str(number)

    def test_refusals(self, server: Server) -> None:
        """Refused handshakes leave nothing either."""
        with server.nothing_left():
            for _ in range(20):
                assert server.get("/echo/", {"Origin": "http://evil.example"}).status == 200
                with RawPeer(server.address) as peer:
                    peer.send(b"GET /echo/ HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n")
                    peer.send(b"Connection: Upgrade, close\r\n\r\n")
                    assert peer.read_response().status in (400, 426)


@everywhere
class TestKeepalive:
    """The server sends pings, and ends connections that do not answer."""

    def test_answered_pings_keep_a_connection(self, server: Server) -> None:
        """A peer that answers pings stays, well beyond the timeout."""
        with RawPeer.open(server, "/lively/") as peer:
            for _ in range(15):
                frame = peer.read_frame()
                assert frame.opcode == PING
                peer.send_frame(PONG, frame.payload)
            peer.send_text("still here")
            while (frame := peer.read_frame()).opcode == PING:
                peer.send_frame(PONG, frame.payload)
            assert frame.payload == b"still here"

    def test_unanswered_pings_end_a_connection(self, server: Server) -> None:
        """A peer that says nothing is given up, and nothing of it is left."""
        with server.nothing_left(), RawPeer.open(server, "/impatient/") as peer:
            ending = peer.read_to_eof()
            assert ending.frames[0].opcode == PING

    def test_any_byte_is_a_sign_of_life(self, server: Server) -> None:
        """A peer that sends messages but no pong is alive."""
        with RawPeer.open(server, "/lively/") as peer:
            for _ in range(30):
                peer.send_text("busy")
                while peer.read_frame().opcode == PING:
                    pass
                pause(0.1)


@pytest.mark.slow
@pytest.mark.extended("waits for three timeouts of a worker")
@pytest.mark.parametrize(
    "kind", [GUNICORN_GEVENT, *later(GUNICORN_SYNC, GUNICORN_GTHREAD, GUNICORN_EVENTLET)], ids=str
)
def test_idle_sockets_outlive_the_worker_timeout(
    kind: Kind, own_server: Callable[..., Server]
) -> None:
    """200 sockets idle for three times gunicorn's timeout, pages in between, and all still echo."""
    server = own_server(kind, options=("--timeout", "8"))
    with server.quiet(), server.nothing_left():
        worker = server.worker
        with RawPeer.open_many(server, "/echo/", 200) as peers:
            outlive(server, peers, pages=36)
            for peer in peers:
                close_frame(peer)
        assert server.worker == worker
    eventually(lambda: server.status()["pid"] == worker, 60)
