"""
The first WebSocket of a process, for which the engine has to be started, while something is scarce.

Whichever resource is missing, the client gets 503 with Retry-After at once; the connection is the
server's as before, and the process loses nothing.
"""

from __future__ import annotations

import contextlib
import resource
from collections.abc import Callable

import pytest
from test_faults import address_space, converses, limited

from support.raw_peer import RawPeer, handshake_request
from support.server import (
    GEVENT_PATCHED,
    GUNICORN_GTHREAD,
    GUNICORN_SYNC,
    RUNSERVER,
    Server,
    descriptors,
)
from support.waiting import eventually

pytestmark = pytest.mark.extended("starts many servers")

Own = Callable[..., Server]

MEBIBYTE = 1 << 20
# More descriptors than a server, an exchange and the engine need together.
ENOUGH = 40
KEEP_ALIVE = [GUNICORN_GTHREAD, RUNSERVER, GEVENT_PATCHED]


def patient(kind: object) -> tuple[str, ...]:
    """Give options with which the server keeps a connection between two requests."""
    return ("--keep-alive", "60") if kind is GUNICORN_GTHREAD else ()


def outcome(peer: RawPeer, server: Server) -> int | None:
    """Return the status of a handshake, None if the server has hung up without an answer."""
    peer.send(handshake_request("/echo/", server.host))
    try:
        while b"\r\n\r\n" not in peer.buffer:
            if not peer._fill():
                return None
    except ConnectionError:
        return None
    response = peer.read_response()
    if response.status == 503:
        assert response.header("Retry-After") == "5"
    return response.status


def page(peer: RawPeer, server: Server) -> int:
    """Ask for a page, and leave the connection open."""
    peer.send(f"GET /plain/ HTTP/1.1\r\nHost: {server.host}\r\n\r\n".encode())
    return peer.read_response().status


def refused_with(server: Server, spare: int) -> bool:
    """Ask with so many descriptors to spare; return whether the client got the 503."""
    worker = server.worker
    with RawPeer(server.address) as peer:
        # The server has its own descriptor then.
        assert page(peer, server) == 200
        with limited(worker, resource.RLIMIT_NOFILE, len(descriptors(worker)) + spare):
            status = outcome(peer, server)
    assert status in (101, 503)
    return status == 503


@pytest.mark.parametrize("kind", KEEP_ALIVE, ids=str)
def test_descriptors(own_server: Own, kind: object) -> None:
    """However few there are left: 503, and never silence; and nothing is left behind."""
    server = own_server(kind, options=patient(kind))
    server.get("/plain/")
    worker = server.worker
    spare = 0
    while refused_with(server, spare):
        # Parts of the engine that were made once are there for the next attempt.
        server.at_rest()
        kept = len(descriptors(worker))
        if refused_with(server, spare):
            eventually(lambda: len(descriptors(worker)) <= kept, 60)  # noqa: B023
        spare += 1
    assert 3 <= spare < ENOUGH
    converses(server)
    assert server.worker == worker
    assert "Traceback" not in server.stderr()


@pytest.mark.parametrize("kind", [RUNSERVER, GUNICORN_SYNC, GEVENT_PATCHED], ids=str)
def test_threads(own_server: Own, kind: object) -> None:
    """Neither for the engine nor for what else begins with it."""
    server = own_server(kind, options=patient(kind))
    server.get("/plain/")
    worker = server.worker
    with contextlib.ExitStack() as stack:
        peers: list[RawPeer] = []
        if kind in KEEP_ALIVE:
            # Those servers start a thread of their own for each.
            peers = [stack.enter_context(RawPeer(server.address)) for _ in range(5)]
            assert [page(peer, server) for peer in peers] == [200] * 5

        def refused() -> bool:
            # None is closed meanwhile: the end of its thread would make room.
            peer = peers.pop() if peers else stack.enter_context(RawPeer(server.address))
            return outcome(peer, server) == 503

        with limited(worker, resource.RLIMIT_AS, address_space(worker) + MEBIBYTE):
            assert refused()
            server.at_rest()
            kept = len(descriptors(worker))
            assert all(refused() for _ in range(4))
    eventually(lambda: len(descriptors(worker)) <= kept, 60)
    converses(server)
    assert server.worker == worker


@pytest.mark.parametrize("kind", KEEP_ALIVE, ids=str)
def test_connection_stays_the_servers(own_server: Own, kind: object) -> None:
    """It goes on to serve pages on the same connection, and then the WebSocket."""
    server = own_server(kind, options=patient(kind))
    server.get("/plain/")
    worker = server.worker
    with RawPeer(server.address) as peer:
        assert page(peer, server) == 200
        with limited(worker, resource.RLIMIT_NOFILE, len(descriptors(worker))):
            assert outcome(peer, server) == 503
        assert page(peer, server) == 200
        assert outcome(peer, server) == 101
        peer.send_text("hello")
        assert peer.read_message() == b"hello"
