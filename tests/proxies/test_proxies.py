"""
Real proxies in front, with the configuration that `websocket_doctor --proxy` prints.

Minutes of silence are simulated: the proxy's timeout and the ping interval are made shorter alike.
"""

from __future__ import annotations

import contextlib
import json
import signal
import time
from typing import TYPE_CHECKING

import pytest

from support.clients import websocket
from support.installed import require
from support.proxy import Proxy
from support.raw_peer import PING, PONG, TEXT, RawPeer
from support.selection import later
from support.server import (
    ASGI,
    GUNICORN_GTHREAD,
    GUNICORN_SYNC,
    NATIVE,
    SERVERS,
    UVICORN,
    Kind,
    Server,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Own = Callable[..., Server]

pytestmark = pytest.mark.extended("the proxies are Debian's")

# A proxy that cuts after this silence, and pings that come four times as often.
CUT_S = 4.0
PINGS = {"WEBSOCKET_PING_INTERVAL": CUT_S / 4, "WEBSOCKET_PING_TIMEOUT": 20}
# Long enough for a connection without pings to be cut.
SILENCE_S = 1.5 * CUT_S

UNIX = next(kind for kind in SERVERS if kind.unix and "gthread" in kind.name)

BEHIND = [GUNICORN_SYNC, GUNICORN_GTHREAD, UNIX, UVICORN]
# The same to every proxy: the engine has taken the connection over.
OTHERS = [kind for kind in ASGI if kind.name in ("hypercorn", "daphne", "gunicorn-asgi")]
UVICORN_UNIX = next(kind for kind in NATIVE if kind.name == "uvicorn-unix")
PROXIES = ["nginx", "caddy", "apache"]

each_proxy = pytest.mark.parametrize("proxy_kind", ["nginx", *later("caddy", "apache")])


@pytest.fixture
def chain(own_server: Own) -> Iterator[Callable[..., Proxy]]:
    """Start a server and a proxy in front: `chain(proxy_kind, kind, timeout=…, settings=…)`."""
    with contextlib.ExitStack() as stack:

        def start(
            proxy_kind: str, kind: Kind, *, timeout: float = 60, **settings: object
        ) -> tuple[Proxy, Server]:
            require(proxy_kind)
            server = own_server(kind, settings=settings)
            proxy = stack.enter_context(
                Proxy(proxy_kind, server, timeout=timeout, settings=settings)
            )
            return proxy, server

        yield start


@pytest.mark.parametrize(
    ("proxy_kind", "kind"),
    [
        *((proxy, kind) for proxy in PROXIES for kind in BEHIND),
        *(("nginx", kind) for kind in (*OTHERS, UVICORN_UNIX)),
    ],
    ids=str,
)
class TestEachServer:
    """Over TCP and over a Unix socket."""

    def test_messages_and_closes(self, chain: Callable, proxy_kind: str, kind: Kind) -> None:
        """Text, a mebibyte, and close frames from both sides pass; Host and Origin are right."""
        proxy, _ = chain(proxy_kind, kind)
        origin = {"Origin": f"http://{proxy.host}"}
        with RawPeer.open(proxy, "/echo/", headers=origin) as peer:
            peer.send_text("through a proxy")
            assert peer.read_message() == b"through a proxy"
            peer.send_close(4321)
            assert peer.read_frame().code == 4321
        with RawPeer.open(proxy, "/closes-first/") as peer:
            frame = peer.read_frame()
            assert (frame.code, frame.reason) == (4001, "bye")
        with websocket(proxy, "/echo/") as client:
            client.send("x" * (1 << 20))
            assert client.recv(20) == "x" * (1 << 20)
        with RawPeer.open(proxy, "/request-facts/7/?q=1") as peer:
            assert json.loads(peer.read_message())["get"] == {"q": "1"}

    def test_pings_outlive_its_timeout(self, chain: Callable, proxy_kind: str, kind: Kind) -> None:
        """A client that says nothing by itself stays connected for longer than the timeout."""
        proxy, _ = chain(proxy_kind, kind, timeout=CUT_S, **PINGS)
        with RawPeer.open(proxy, "/echo/") as peer:
            until = time.monotonic() + SILENCE_S
            while time.monotonic() < until:
                frame = peer.read_frame()
                assert frame.opcode == PING
                peer.send_frame(PONG, frame.payload)
            peer.send_text("still here")
            while (frame := peer.read_frame()).opcode == PING:
                peer.send_frame(PONG, frame.payload)
            assert (frame.opcode, frame.payload) == (TEXT, b"still here")


@pytest.mark.parametrize("proxy_kind", ["nginx", *later("apache")])
def test_without_pings_it_cuts(chain: Callable, proxy_kind: str) -> None:
    """A check of the other tests' silence: without pings the proxy cuts the connection."""
    proxy, _ = chain(proxy_kind, GUNICORN_GTHREAD, timeout=CUT_S, WEBSOCKET_PING_INTERVAL=None)
    with RawPeer.open(proxy, "/echo/") as peer:
        assert peer.read_to_eof().frames == []


@each_proxy
def test_default_timeouts(chain: Callable, proxy_kind: str) -> None:
    """With all defaults, of the proxy and of this package, 50 connections talk and stay."""
    proxy, server = chain(proxy_kind, GUNICORN_GTHREAD)
    with RawPeer.open_many(proxy, "/echo/", 50) as peers:
        for peer in peers:
            peer.send_text("one of many")
        assert {peer.read_message() for peer in peers} == {b"one of many"}
        assert server.get("/echo/").status == 200
        for peer in peers:
            peer.send_close(1000)
            assert peer.read_frame().code == 1000


@each_proxy
def test_reload_behind_it(chain: Callable, proxy_kind: str) -> None:
    """The 1012 of a reload passes, and clients that come back through the proxy are served."""
    proxy, server = chain(proxy_kind, GUNICORN_GTHREAD, WEBSOCKET_DRAIN=1)
    with RawPeer.open_many(proxy, "/echo/", 20) as peers:
        server.send_signal(signal.SIGHUP)
        assert {peer.read_frame().code for peer in peers} == {1012}
    with RawPeer.open(proxy, "/echo/") as peer:
        peer.send_text("back again")
        assert peer.read_message() == b"back again"
