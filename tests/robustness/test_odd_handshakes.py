"""
Opening handshakes that two readers could understand in two ways.

A proxy in front of a server, and the server itself, must not disagree on what a request asks and
where it ends; where they could, there is no WebSocket.
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

import pytest

from support.raw_peer import TIMEOUT_S, RawPeer, handshake_request
from support.server import (
    ASGI,
    EVENTLET_PATCHED,
    GEVENT_PATCHED,
    GUNICORN_GEVENT,
    GUNICORN_GTHREAD,
    GUNICORN_SYNC,
    RUNSERVER,
)
from support.wsgi_kinds import CHEROOT, UWSGI_HTTP_SOCKET, UWSGI_ROUTER, WAITRESS, WERKZEUG

if TYPE_CHECKING:
    from support.server import Server

pytestmark = pytest.mark.extended("is a list of what many servers make of odd requests")

KEY = base64.b64encode(b"another sixteen!").decode()
WSGI = (
    *(RUNSERVER, GUNICORN_SYNC, GUNICORN_GTHREAD, GUNICORN_GEVENT, GEVENT_PATCHED),
    *(EVENTLET_PATCHED, WERKZEUG, CHEROOT, WAITRESS, UWSGI_HTTP_SOCKET, UWSGI_ROUTER),
)
everywhere = pytest.mark.parametrize("server", [*WSGI, *ASGI], indirect=True, ids=str)
# Where the engine reads what follows the handshake.
by_the_engine = pytest.mark.parametrize("server", WSGI, indirect=True, ids=str)


# How long a server may take to accept what it has to refuse, in seconds. Some never answer.
SILENCE_S = 5.0


def answer(server: Server, request: bytes, within: float = TIMEOUT_S) -> int | None:
    """Send a request; give the status of the answer, None when there is none."""
    with RawPeer(server.address) as peer:
        peer.sock.settimeout(within)
        peer.send(request)
        try:
            return peer.read_response().status
        except (AssertionError, OSError, EOFError):
            return None


def request(server: Server, *lines: str, without: tuple[str, ...] = (), **how: str) -> bytes:
    """Make a handshake with further header lines, and without others."""
    headers = dict.fromkeys(without)
    made = handshake_request("/echo/", server.host, headers=headers, **how)  # type: ignore[arg-type]
    return made[:-2] + "".join(f"{line}\r\n" for line in lines).encode("latin-1") + b"\r\n"


# More lines, and those that are left out for them.
ODD = {
    "two keys": ((f"Sec-WebSocket-Key: {KEY}",), ()),
    "two keys in one line": ((f"Sec-WebSocket-Key: {KEY}, {KEY}",), ("Sec-WebSocket-Key",)),
    "two versions": (("Sec-WebSocket-Version: 8",), ()),
    "the version twice": (("Sec-WebSocket-Version: 13",), ()),
    "two versions in one line": (("Sec-WebSocket-Version: 13, 8",), ("Sec-WebSocket-Version",)),
    "two hosts": (("Host: evil.example",), ()),
    "two origins": (("Origin: https://friend.example", "Origin: https://evil.example"), ()),
    "two origins, the other way": (
        ("Origin: https://evil.example", "Origin: https://friend.example"), ()),
    "key with a blank before the colon": (
        (f"Sec-WebSocket-Key : {KEY}",), ("Sec-WebSocket-Key",)),
    "body with a length": (("Content-Length: 5",), ()),
    "body in chunks": (("Transfer-Encoding: chunked",), ()),
    "two lengths": (("Content-Length: 0", "Content-Length: 5"), ()),
    "length and chunks": (("Content-Length: 5", "Transfer-Encoding: chunked"), ()),
    "length with a sign": (("Content-Length: +0",), ()),
    "chunks, misspelt": (("Transfer-Encoding: xchunked",), ()),
    "http 1.0": ((), ()),
}  # fmt: skip


# Servers, by the beginnings of their names, that do not pass the odd part on: then there is nothing
# to validate.
_LAST = "cheroot"
HIDDEN = {
    # The first length counts.
    "two lengths": ("runserver", "gevent", "gunicorn-gevent_pywsgi", "eventlet"),
    # The last line of a name counts.
    "two keys": (_LAST,),
    "the version twice": (_LAST,),
    "two origins, the other way": (_LAST,),
    "key with a blank before the colon": (_LAST,),
}


@everywhere
class TestOdd:
    """No 101 for what can be read in two ways."""

    @pytest.mark.parametrize("name", ODD)
    def test_refused(self, server: Server, name: str) -> None:
        """4xx, 5xx or no answer, unless the server hides it; the next client is served."""
        lines, without = ODD[name]
        how = {"http": "HTTP/1.0"} if name == "http 1.0" else {}
        sent = request(server, *lines, without=without, **how)
        # The bytes of a body, where one is announced.
        sent += b"hello" if "Content-Length: 5" in lines else b""
        if str(server.kind).startswith(HIDDEN.get(name, ("no server",))):
            assert answer(server, sent) == 101
        else:
            status = answer(server, sent, SILENCE_S)
            assert status is None or status >= 400
        assert answer(server, request(server)) == 101

    @pytest.mark.parametrize("header", ["Sec-WebSocket-Protocol", "Sec-WebSocket-Extensions"])
    def test_thousands_of_offers(self, server: Server, header: str) -> None:
        """They are read or refused; no other client waits for that."""
        offers = ",".join(f"a{number}" for number in range(5000))
        sent = request(server, f"{header}: {offers}")
        assert answer(server, sent, SILENCE_S) in (None, 101, 400, 431, 500)
        assert answer(server, request(server)) == 101

    def test_head_without_an_end(self, server: Server) -> None:
        """A mebibyte of headers is not taken in; the next client is served."""
        fillers = [b"X-Filler-%d: " % number + b"x" * 4000 + b"\r\n" for number in range(260)]
        with RawPeer(server.address) as peer:
            peer.send_until_refused([request(server)[:-2], *fillers, b"\r\n"])
            peer.sock.settimeout(SILENCE_S)
            try:
                status = peer.read_response().status
            except (AssertionError, OSError, EOFError):
                status = None
        assert status is None or status >= 400
        assert answer(server, request(server)) == 101


@by_the_engine
@pytest.mark.requires("early bytes")
def test_request_behind_it(server: Server) -> None:
    """A request in the same write is not served: 1002, or the handshake is refused."""
    second = f"GET /status/ HTTP/1.1\r\nHost: {server.host}\r\n\r\n".encode()
    with RawPeer(server.address) as peer:
        peer.send(request(server) + second)
        status = peer.read_response().status
        if server.kind == WAITRESS:
            # It has read on and keeps what it read.
            assert status == 501
        else:
            assert status == 101
            assert peer.read_to_eof().code == 1002
