"""A place of ``WEBSOCKET_MAX_CONNECTIONS`` belongs to a connection and to its view."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from support.raw_peer import RawPeer, handshake_request
from support.selection import later
from support.server import GUNICORN_GTHREAD, GUNICORN_SYNC, UVICORN, Server, thread_count
from support.waiting import eventually

Own = Callable[..., Server]

MOST = 5
CYCLES = 400
# View threads, those of the engine and of the server.
FEW = 20


def status(server: Server, path: str) -> int:
    """Shake hands and vanish; return the status."""
    with RawPeer(server.address) as peer:
        peer.send(handshake_request(path, server.host))
        answer = peer.read_response().status
        peer.vanish()
        return answer


@pytest.mark.parametrize("kind", [GUNICORN_GTHREAD, UVICORN, *later(GUNICORN_SYNC)], ids=str)
@pytest.mark.parametrize("path", ["/places/oblivious/", "/places/oblivious-undecided/"])
def test_clients_that_come_and_go(own_server: Own, kind: object, path: str) -> None:
    """Views that do not notice keep their places: the next clients are refused, not served."""
    settings = {"WEBSOCKET_MAX_CONNECTIONS": MOST, "WEBSOCKET_HANDSHAKE_TIMEOUT": 0.05}
    server = own_server(kind, settings=settings)
    statuses = [status(server, path) for _ in range(CYCLES)]
    if path == "/places/oblivious/":
        assert statuses.count(101) == MOST
    assert set(statuses) <= {101, 503}
    eventually(lambda: thread_count(server.worker) < FEW, 60)
    # They are free as soon as the views have ended.
    server.get("/places/let-go/")
    eventually(lambda: server.get("/census/").json()["connections"] == 0, 60)
    with RawPeer.open(server, "/echo/") as peer:
        peer.send_text("hello")
        assert peer.read_message() == b"hello"
