"""Handlers behave alike on every kind of server."""

from __future__ import annotations

import pytest

from support.raw_peer import BINARY, CLOSE, TEXT, Frame, RawPeer, handshake_request
from support.server import ASGI, OLDER_GREEN, OLDER_GUNICORNS, SERVERS, Server
from support.waiting import eventually
from support.wsgi_kinds import WSGI_SERVERS

everywhere = pytest.mark.parametrize(
    "server",
    [*SERVERS, *WSGI_SERVERS, *ASGI, *OLDER_GUNICORNS, *OLDER_GREEN],
    indirect=True,
    ids=str,
)


@everywhere
@pytest.mark.parametrize("which", ["echo", "async-echo", "mixed-echo"])
class TestHandlers:
    """Sync, async and mixed ones."""

    def test_echo_and_end(self, server: Server, which: str) -> None:
        """Exact types, in order; and `disconnect` learns of the close."""
        name = f"{which}-{server.kind}"
        with RawPeer.open(server, f"/handlers/{which}/{name}/") as peer:
            for frame in (Frame(TEXT, "né".encode()), Frame(BINARY, b"plain")):
                peer.send_frame(frame.opcode, frame.payload)
                assert peer.read_frame() == frame
            for number in range(100):
                peer.send_text(str(number))
            assert [peer.read_message() for _ in range(100)] == [b"%d" % n for n in range(100)]
            peer.send_close(4001)
            assert peer.read_frame().opcode == CLOSE
        seen = eventually(lambda: server.get(f"/handlers/seen/{name}/").json()["seen"], 60)
        assert seen == [4001, True]

    def test_many(self, server: Server, which: str) -> None:
        """Connections at the same time."""
        path = f"/handlers/{which}/many-{which}/"
        with RawPeer.open_many(server, path, 30) as peers:
            for number, peer in enumerate(peers):
                peer.send_text(str(number))
            for number, peer in enumerate(peers):
                assert peer.read_message() == b"%d" % number


@everywhere
@pytest.mark.parametrize("which", ["door", "async-door"])
def test_connect_decides(server: Server, which: str) -> None:
    """It refuses by an exception or a response, and accepts otherwise."""
    for name, status in [("denied", 403), ("pay", 402)]:
        with RawPeer(server.address) as peer:
            peer.send(handshake_request(f"/handlers/{which}/{name}/", server.host))
            assert peer.read_response().status == status
        assert server.get(f"/handlers/seen/{name}/").json()["seen"] is None
    with RawPeer.open(server, f"/handlers/{which}/{which}/") as peer:
        peer.send_text("hello")
        assert peer.read_message() == b"hello"
