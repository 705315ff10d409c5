"""`ping()` and `wait_closed()` behind every server, on any kind of thread and in event loops."""

from __future__ import annotations

import json

import pytest

from support.raw_peer import RawPeer
from support.server import ASGI, SERVERS, Server
from support.waiting import eventually
from support.wsgi_kinds import WSGI_SERVERS

KINDS = (*SERVERS, *WSGI_SERVERS, *ASGI)
everywhere = pytest.mark.parametrize("server", KINDS, indirect=True, ids=str)


@everywhere
@pytest.mark.parametrize("name", ["pings", "async-pings"])
def test_ping_and_the_end(server: Server, name: str) -> None:
    """The client's pong is timed, except where the server keeps the connection; its close wakes."""
    with RawPeer.open(server, f"/{name}/") as peer:
        told = json.loads(peer.read_message())
        if str(server.kind) == "granian":
            assert told == {"took": None, "latency": None}
        else:
            assert told["took"] == told["latency"]
            assert 0 < told["took"] < 15
        peer.send_close(1000)
        peer.read_to_eof()
    eventually(lambda: json.loads(server.get(f"/seen/{name}/").body)["seen"] is True)
