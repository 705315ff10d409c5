"""Cases that only ASGI has: routing by others, reloads, and the end of the process."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable

import pytest

from support.raw_peer import CLOSE, RawPeer, handshake_request
from support.server import ASGI, UVICORN, Kind, Server
from support.users import sign_in
from support.waiting import eventually

Own = Callable[..., Server]

CHANNELS = Kind(
    "channels",
    "asgi",
    tuple(
        "{python} -m uvicorn --port {port} --log-level warning "
        "project.channels_asgi:application".split()
    ),
    alone=True,
)
PLAIN_HTTP = Kind(
    "uvicorn-without-websockets",
    "asgi",
    tuple(
        "{python} -m uvicorn --port {port} --log-level warning --ws none "
        "project.asgi:application".split()
    ),
    alone=True,
)


@pytest.fixture
def channels(own_server: Own) -> Server:
    """Serve the project behind Channels' ``ProtocolTypeRouter``."""
    return own_server(CHANNELS)


def test_behind_channels_router(channels: Server) -> None:
    """Sync and async views work as ever; users of the session are known."""
    # Channels' validator refuses every request without one.
    origin = {"Origin": f"http://{channels.host}"}
    headers = {**sign_in(channels, "anna"), **origin}
    with RawPeer.open(channels, "/request-facts/7/?a=b", headers=headers) as peer:
        assert b'"user": "anna"' in peer.read_message()
    for path in ("/echo/", "/async-echo/"):
        with RawPeer.open(channels, path, headers=origin) as peer:
            peer.send_text("hello")
            assert peer.read_message() == b"hello"
            peer.send_close(1000)
            assert peer.read_to_eof().code == 1000


@pytest.mark.parametrize("transport", ["sse", "polling"])
def test_behind_channels_router_no_fallback(channels: Server, transport: str) -> None:
    """Django's own handler would keep a thread for each client: the log says what to use."""
    assert channels.get(f"/fallback/echo/?transport={transport}").status == 501
    assert "dwebsocket.asgi.get_asgi_application()" in channels.stderr()


def test_behind_channels_router_refuses(channels: Server) -> None:
    """A handshake that Django refuses gets Django's response."""
    with RawPeer(channels.address) as peer:
        headers = {"Origin": f"http://{channels.host}"}
        peer.send(handshake_request("/nowhere/", channels.host, headers=headers))
        assert peer.read_response().status == 404


def test_server_without_websockets_says_so(own_server: Own) -> None:
    """A server that takes the handshake for plain HTTP gets 501 and a hint in the log."""
    server = own_server(PLAIN_HTTP)
    with RawPeer(server.address) as peer:
        peer.send(handshake_request("/echo/", server.host))
        assert peer.read_response().status == 501
    assert "--ws none" in server.stderr()


@pytest.mark.parametrize("http", ["h11", "httptools"])
def test_what_the_client_offers_is_agreed_on_under_wsproto(http: str, own_server: Own) -> None:
    """It leaves the offers out of the scope's headers."""
    (kind,) = (kind for kind in ASGI if str(kind) == "uvicorn-wsproto")
    server = own_server(kind, options=("--http", http))
    offers = {
        "Sec-WebSocket-Protocol": "other, chat.v2",
        "Sec-WebSocket-Extensions": "permessage-deflate",
    }
    with RawPeer.open(server, "/subprotocol/", headers=offers) as peer:
        assert peer.response.header("Sec-WebSocket-Protocol") == "chat.v2"
        agreed = peer.response.header("Sec-WebSocket-Extensions") or ""
        assert agreed.startswith("permessage-deflate")


@pytest.mark.parametrize("kind", ASGI, ids=str)
def test_many_see_the_end(kind: Kind, own_server: Own) -> None:
    """On SIGTERM every client that keeps to the protocol sees a close frame; no traceback."""
    server = own_server(kind)
    with contextlib.ExitStack() as stack:
        paths = ["/echo/", "/async-echo/", "/never-read/", "/push/"] * 10
        peers = [stack.enter_context(RawPeer.open(server, path)) for path in paths]
        server.send_signal(signal.SIGTERM)
        for peer in peers:
            while (frame := peer.read_frame()).opcode != CLOSE:
                pass
            assert frame.code == 1001
            peer.send_frame(CLOSE, frame.payload)
    server.wait(60)
    assert "Traceback" not in server.stderr()


def test_uvicorn_reload_ends_the_old_worker(own_server: Own) -> None:
    """With sockets open, also of a view that never looks, a reload takes a few seconds."""
    kind = Kind("uvicorn-reload", "asgi", UVICORN.options)
    server = own_server(kind, options=("--reload", "--reload-dir", "{folder}"))
    with RawPeer.open(server, "/echo/") as peer, RawPeer.open(server, "/stubborn/"):
        before = server.status()["pid"]

        def is_noticed() -> bool:
            # Again and again: uvicorn may not watch yet.
            (server.folder / "changed.py").write_text(f"changed = {time.time()}\n")
            return peer.is_readable(3)

        eventually(is_noticed, what="the change is noticed")
        assert peer.read_frame().code in (1001, 1012)

        def answers_anew() -> bool:
            with contextlib.suppress(OSError):
                return bool(server.status()["pid"] != before)
            return False

        eventually(answers_anew, 60, "a new worker")
    assert "Traceback" not in server.stderr()
