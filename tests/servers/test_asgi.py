"""Cases that only ASGI has: routing by others, reloads, and the end of the process."""

from __future__ import annotations

import contextlib
import dataclasses
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from support.raw_peer import CLOSE, RawPeer, build_frame, handshake_request
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
# Those whose connections the engine takes over.
GIVING = [kind for kind in ASGI if str(kind) != "granian"]


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


def within(kind: Kind, name: str) -> Kind:
    """Make a kind whose project is within another application."""
    options = [option.replace("{module}.asgi", f"project.{name}_asgi") for option in kind.options]
    return dataclasses.replace(kind, name=f"{kind}-{name}", options=tuple(options))


def unread(kind: Kind) -> Kind:
    """Make a kind whose project has a page that the server gets at once."""
    return within(kind, "unread")


def ask_behind_the_page(server: Server) -> RawPeer:
    """Send a handshake behind a request for that page, of which only the first byte is read."""
    peer = RawPeer(server.address)
    peer.send(f"GET /unread/ HTTP/1.1\r\nHost: {server.host}\r\n\r\n".encode())
    peer.buffer += peer.sock.recv(1)
    peer.send(handshake_request("/echo/", server.host))
    return peer


def is_held(peer: RawPeer) -> bool:
    """Whether a process has the server's end of a connection, which the system may still close."""
    port = f":{peer.sock.getsockname()[1]:04X}"
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()]
    return any(row[2].endswith(port) and row[9] != "0" for row in rows)


def assert_is_the_engine_s(peer: RawPeer) -> None:
    """Break a rule of the protocol: the engine says which, in its own words."""
    while (status := peer.read_response().status) != 101:
        assert status in (100, 200)
    peer.send(build_frame(3))
    assert peer.read_frame().reason == "opcode 3 is reserved"


@pytest.mark.parametrize("kind", GIVING, ids=str)
def test_no_client_chooses_that_its_server_keeps_it(kind: Kind, own_server: Own) -> None:
    """By what it asks for before, does not read yet, or has the server say."""
    server = own_server(unread(kind))
    with ask_behind_the_page(server) as peer:
        assert_is_the_engine_s(peer)
    page = f"GET /status/ HTTP/1.1\r\nHost: {server.host}\r\n\r\n".encode()
    for before, headers in ((page, {}), (b"", {"Expect": "100-continue"})):
        with RawPeer(server.address) as peer:
            peer.send(before + handshake_request("/echo/", server.host, headers=headers))
            assert_is_the_engine_s(peer)


@pytest.mark.parametrize("kind", [kind for kind in ASGI if str(kind) == "hypercorn"], ids=str)
def test_no_version_chooses_that_hypercorn_keeps_it(kind: Kind, own_server: Own) -> None:
    """It passes on any that the request has."""
    server = own_server(kind)
    for http in ("HTTP/1.2", "HTTP/2.0", "HTTP/3.0"):
        with RawPeer(server.address) as peer:
            peer.send(handshake_request("/echo/", server.host, http=http))
            assert_is_the_engine_s(peer)


@pytest.mark.parametrize("kind", [kind for kind in ASGI if str(kind) == "hypercorn"], ids=str)
def test_middleware_says_that_the_page_is_encrypted(kind: Kind, own_server: Own) -> None:
    """With the scheme of a page: hypercorn's, behind a proxy that ends TLS."""
    server = own_server(within(kind, "proxied"))
    headers = {"X-Forwarded-Proto": "https", "Origin": f"https://{server.host}"}
    with RawPeer.open(server, "/echo/", headers=headers) as peer:
        peer.send_text("hello")
        assert peer.read_message() == b"hello"


# The others read the handshake only when the page is sent.
@pytest.mark.parametrize("kind", [kind for kind in GIVING if "uvicorn" in str(kind)], ids=str)
def test_handshake_behind_a_page_that_is_not_read(kind: Kind, own_server: Own) -> None:
    """The connection ends after the time of a handshake."""
    server = own_server(unread(kind), settings={"WEBSOCKET_HANDSHAKE_TIMEOUT": 0.5})
    with ask_behind_the_page(server) as peer:
        assert is_held(peer)
        eventually(lambda: not is_held(peer))
    assert server.get("/status/").status == 200
    assert "Traceback" not in server.stderr()


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
