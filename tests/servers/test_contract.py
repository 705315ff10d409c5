"""
The behaviours that every server must have: one list, each over every server.

The peer is a bare socket wherever bytes matter. `read_to_eof` fails when anything but whole,
well-formed frames is on the wire, so every test that ends with it is also a test of that.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
from typing import TYPE_CHECKING

import pytest

from support.clients import websocket
from support.raw_peer import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    Frame,
    RawPeer,
    build_frame,
    handshake_request,
)
from support.server import (
    ASGI,
    KEPT,
    NATIVE,
    OLDER_GREEN,
    OLDER_GUNICORNS,
    SERVERS,
    Kind,
    Response,
    Server,
)
from support.users import sign_in
from support.waiting import eventually
from support.wsgi_kinds import WSGI_SERVERS

if TYPE_CHECKING:
    from collections.abc import Callable

# They close the socket without reading the client's answer to their close frame. If it has come by
# then the connection ends by a reset, otherwise not (docs/servers/asgi.md).
HANGS_UP_UNREAD = {"daphne", "granian"}
KINDS = (*SERVERS, *WSGI_SERVERS, *ASGI, *NATIVE, *KEPT)
everywhere = pytest.mark.on_servers(*KINDS, *OLDER_GUNICORNS, *OLDER_GREEN)
on_each_kind = pytest.mark.parametrize("kind", KINDS, ids=str)


def ask(server: Server, request: bytes) -> Response:
    """Send a handshake that is expected to be refused and return the answer."""
    with RawPeer(server.address) as peer:
        peer.send(request)
        return peer.read_response()


def close_politely(peer: RawPeer, code: int = 1000) -> None:
    """Close from the client's side and see that the server answers in kind, then EOF."""
    peer.send_close(code)
    assert peer.read_to_eof().code == code


@everywhere
class TestMessages:
    """Messages go there and back unharmed."""

    def test_text_is_echoed(self, server: Server) -> None:
        """Text of every length form comes back as one text message."""
        with RawPeer.open(server, "/echo/") as peer:
            for text in ("", "hello", "grüße 日本語 🙂", "x" * 125, "x" * 126, "x" * 65536):
                peer.send_text(text)
                assert peer.read_frame() == Frame(TEXT, text.encode())
            close_politely(peer)

    def test_bytes_that_are_text_are_sent_as_text_by_default(self, server: Server) -> None:
        """The compatible types send bytes as TEXT when they are UTF-8, else as BINARY."""
        with RawPeer.open(server, "/echo/") as peer:
            peer.send_frame(BINARY, b"plain")
            peer.send_frame(BINARY, b"\xff\x00")
            assert peer.read_frame() == Frame(TEXT, b"plain")
            assert peer.read_frame() == Frame(BINARY, b"\xff\x00")
            close_politely(peer)

    @pytest.mark.parametrize("path", ["/echo-str/", "/echo-exact/"])
    def test_exact_types_keep_the_kind_of_a_message(self, server: Server, path: str) -> None:
        """With str for text, text stays text and binary stays binary."""
        with RawPeer.open(server, path) as peer:
            for frame in (Frame(TEXT, "né".encode()), Frame(BINARY, b"plain"), Frame(BINARY, b"")):
                peer.send_frame(frame.opcode, frame.payload)
                assert peer.read_frame() == frame
            close_politely(peer)

    def test_a_mebibyte_is_echoed(self, server: Server) -> None:
        """A large binary message comes back whole, by a client library."""
        data = os.urandom(1 << 20)
        with websocket(server, "/echo/") as client:
            client.send(data)
            assert client.recv(20) == data

    def test_fragments_become_one_message(self, server: Server) -> None:
        """Fragments are joined; a ping between them is answered at once."""
        with RawPeer.open(server, "/echo/") as peer:
            peer.send_frame(TEXT, b"one ", fin=False)
            peer.send_frame(PING, b"between")
            assert peer.read_frame() == Frame(PONG, b"between")
            peer.send_frame(CONTINUATION, b"", fin=False)
            peer.send_frame(CONTINUATION, b"two")
            assert peer.read_message() == b"one two"
            close_politely(peer)

    def test_many_messages_keep_their_order(self, server: Server) -> None:
        """A burst of 500 messages, written at once, is answered in order."""
        with RawPeer.open(server, "/echo/") as peer:
            peer.send(b"".join(build_frame(TEXT, b"%d" % n) for n in range(500)))
            assert [peer.read_message() for _ in range(500)] == [b"%d" % n for n in range(500)]
            close_politely(peer)


@everywhere
class TestHandshake:
    """The real 101, and the bytes that may come with it."""

    def test_response_is_what_the_rfc_asks_for(self, server: Server) -> None:
        """Each header of the handshake is there once, the key is answered, there is no body."""
        key = base64.b64encode(os.urandom(16)).decode()
        with RawPeer.open(server, "/echo/", headers={"Sec-WebSocket-Key": key}) as peer:
            accept = hashlib.sha1((key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode())
            response = peer.response
            assert response.header_all("Sec-WebSocket-Accept") == [
                base64.b64encode(accept.digest()).decode()
            ]
            assert [v.lower() for v in response.header_all("Upgrade")] == ["websocket"]
            assert [v.lower() for v in response.header_all("Connection")] == ["upgrade"]
            assert response.header("Content-Length") is None
            assert response.header("Transfer-Encoding") is None
            assert response.header("Sec-WebSocket-Protocol") is None
            assert response.header("Sec-WebSocket-Extensions") is None
            close_politely(peer)

    def test_headers_and_cookies_of_middleware_are_in_it(self, server: Server) -> None:
        """Response middleware has run before the 101 is written."""
        with RawPeer.open(server, "/echo/") as peer:
            assert peer.response.header_all("X-Stamp") == ["from middleware"]
            cookies = sorted(peer.response.header_all("Set-Cookie"))
            assert [cookie.split(";")[0] for cookie in cookies] == ["second=two", "stamp=one"]
            assert "HttpOnly" in cookies[0]
            close_politely(peer)

    @pytest.mark.parametrize(
        ("offered", "agreed"),
        [("chat.v1", "chat.v1"), ("other, chat.v2", "chat.v2"), ("other", None), (None, None)],
    )
    def test_subprotocol_is_agreed_on(
        self, server: Server, offered: str | None, agreed: str | None
    ) -> None:
        """The agreed subprotocol is in the 101 and on the websocket; none is no refusal."""
        headers = {"Sec-WebSocket-Protocol": offered}
        with RawPeer.open(server, "/subprotocol/", headers=headers) as peer:
            assert peer.response.header("Sec-WebSocket-Protocol") == agreed
            assert json.loads(peer.read_message()) == {"subprotocol": agreed}

    @pytest.mark.parametrize("connection", ["Upgrade", "keep-alive, Upgrade", "upgrade"])
    @pytest.mark.parametrize("upgrade", ["websocket", "WebSocket"])
    def test_tokens_are_compared_without_case(
        self, server: Server, connection: str, upgrade: str
    ) -> None:
        """Firefox sends a list in Connection, others write WebSocket."""
        headers = {"Connection": connection, "Upgrade": upgrade}
        with RawPeer.open(server, "/echo/", headers=headers) as peer:
            close_politely(peer)

    def test_byte_by_byte(self, server: Server) -> None:
        """A client may take a packet for every byte of its handshake."""
        with RawPeer(server.address) as peer:
            for byte in handshake_request("/echo/", server.host):
                peer.send(bytes([byte]))
            assert peer.read_response().status == 101
            peer.send_text("slow but sure")
            assert peer.read_message() == b"slow but sure"
            close_politely(peer)

    @pytest.mark.requires("early bytes")
    @pytest.mark.parametrize(
        "frames",
        [
            [b"first"],
            [b"%03d " % n * 5 for n in range(100)],
            [bytes([65 + n]) * 2000 for n in range(10)],
            [b"x" * 20_000],
        ],
        ids=["one", "hundred", "20,000 bytes", "one of 20,000 bytes"],
    )
    def test_early_frames_are_kept_in_order(self, server: Server, frames: list[bytes]) -> None:
        """Frames in the same write as the handshake arrive, and before later ones."""
        early = b"".join(build_frame(TEXT, payload) for payload in frames)
        with RawPeer.open(server, "/echo/", early=early) as peer:
            peer.send_text("later")
            assert [peer.read_message() for _ in frames] == frames
            assert peer.read_message() == b"later"
            close_politely(peer)

    @pytest.mark.requires("early bytes")
    def test_early_half_of_a_frame(self, server: Server) -> None:
        """A frame may be cut anywhere between the handshake's write and the next."""
        frame = build_frame(TEXT, b"cut in the middle")
        for cut in (1, 2, 5, 9):
            with RawPeer.open(server, "/echo/", early=frame[:cut]) as peer:
                peer.send(frame[cut:])
                assert peer.read_message() == b"cut in the middle"
                close_politely(peer)

    @pytest.mark.requires("early bytes")
    def test_early_close(self, server: Server) -> None:
        """A client may be gone before the view starts."""
        early = build_frame(TEXT, b"bye") + build_frame(CLOSE, b"\x03\xe8")
        with RawPeer.open(server, "/echo/", early=early) as peer:
            assert peer.read_to_eof().code == 1000


MALFORMED = {
    "OPTIONS": ({"method": "OPTIONS"}, 400),
    "POST": ({"method": "POST", "path": "/over/csrf-exempt/"}, 400),
    "HTTP/1.0": ({"http": "HTTP/1.0"}, 400),
    "no host": ({"headers": {"Host": None}}, 400),
    "no key": ({"headers": {"Sec-WebSocket-Key": None}}, 400),
    "empty key": ({"headers": {"Sec-WebSocket-Key": ""}}, 400),
    "short key": ({"headers": {"Sec-WebSocket-Key": "c2hvcnQ="}}, 400),
    "key of 17 bytes": ({"headers": {"Sec-WebSocket-Key": "MDEyMzQ1Njc4OWFiY2RlZmc="}}, 400),
    "key no base64": ({"headers": {"Sec-WebSocket-Key": "*" * 22 + "=="}}, 400),
    "no upgrade": ({"headers": {"Upgrade": None}}, 400),
    "upgrade to h2c": ({"headers": {"Upgrade": "h2c"}}, 400),
    "no connection": ({"headers": {"Connection": None}}, 400),
    "connection keep-alive": ({"headers": {"Connection": "keep-alive"}}, 400),
    "no version": ({"headers": {"Sec-WebSocket-Version": None}}, 426),
    "version 8": ({"headers": {"Sec-WebSocket-Version": "8"}}, 426),
    "version 14": ({"headers": {"Sec-WebSocket-Version": "14"}}, 426),
    "version no number": ({"headers": {"Sec-WebSocket-Version": "thirteen"}}, 426),
    "draft 76": (
        {
            "headers": {
                "Sec-WebSocket-Version": None,
                "Sec-WebSocket-Key": None,
                "Sec-WebSocket-Key1": "4 @1  46546xW%0l 1 5",
                "Sec-WebSocket-Key2": "12998 5 Y3 1  .P00",
            }
        },
        426,
    ),
    "extensions against the grammar": ({"headers": {"Sec-WebSocket-Extensions": "x;"}}, 400),
    "foreign origin": ({"headers": {"Origin": "http://evil.example"}}, 403),
    "opaque origin": ({"headers": {"Origin": "null"}}, 403),
    "origin with another port": ({"headers": {"Origin": "http://127.0.0.1:1"}}, 403),
    "origin that only begins alike": (
        {"headers": {"Origin": "https://friend.example.evil.example"}},
        403,
    ),
    "host not allowed": (
        {"host": "evil.example", "headers": {"Origin": "http://evil.example"}},
        400,
    ),
}

# Headers that a proxy replaces for each request, right or wrong.
MENDED_BY_PROXIES = {"HTTP/1.0", "no connection", "connection keep-alive"}


def has_judged_itself(response: Response) -> bool:
    """Whether an ASGI server refused a handshake by itself, or took an upgrade to HTTP/2."""
    by_middleware = response.header("X-Stamp")
    return by_middleware is None and (
        response.status in (400, 405) or response.header("Upgrade") == "h2c"
    )


@everywhere
class TestRefusals:
    """A handshake that is not right is answered by plain HTTP."""

    @pytest.mark.parametrize("name", MALFORMED)
    def test_malformed_handshake(self, server: Server, name: str) -> None:
        """Each flaw has its status, and the worker goes on."""
        changes, status = MALFORMED[name]
        changes = {"path": "/echo-exact/", "host": server.host, **changes}
        response = ask(server, handshake_request(**changes))
        if server.kind.proxied and name in MENDED_BY_PROXIES:
            assert response.status == 101
            return
        assert response.header("Sec-WebSocket-Accept") is None
        if not (server.kind in {*ASGI, *NATIVE, *KEPT} and has_judged_itself(response)):
            assert response.status == status, response
            if status == 426:
                assert response.header("Sec-WebSocket-Version") == "13"
        assert server.get("/status/").status == 200

    @pytest.mark.parametrize("origin", ["same", "https://friend.example"])
    def test_origins_that_may(self, server: Server, origin: str) -> None:
        """The same origin and those of WEBSOCKET_ALLOWED_ORIGINS are let in."""
        if origin == "same":
            origin = server.url("", "http")
        with RawPeer.open(server, "/echo/", headers={"Origin": origin}) as peer:
            close_politely(peer)

    def test_plain_request_to_a_view_that_requires_a_websocket(self, server: Server) -> None:
        """400 for the page request; a view that only accepts serves both."""
        assert server.get("/echo-exact/").status == 400
        page = server.get("/echo/")
        assert (page.status, page.body) == (200, b"a page")

    def test_websocket_request_to_a_view_that_does_not_accept(self, server: Server) -> None:
        """With the middleware the answer is 400; the view does not run."""
        response = ask(server, handshake_request("/plain/", server.host))
        assert response.status == 400

    def test_plain_requests_carry_the_attributes(self, server: Server) -> None:
        """With the middleware every request says that it is no WebSocket."""
        seen = server.get("/plain/").json()
        assert (seen["is_websocket"], seen["websocket"]) == (False, "None")

    def test_unknown_path(self, server: Server) -> None:
        """A handshake for a URL that does not exist is a 404."""
        assert ask(server, handshake_request("/nowhere/", server.host)).status == 404


@everywhere
class TestEnds:
    """The ends of a connection by each side, with their codes, and nothing but frames up to EOF."""

    @pytest.mark.parametrize(
        ("path", "code", "messages"),
        [
            ("/says-one-thing/", 1000, [b"only this"]),
            ("/returns-at-once/", 1000, []),
            ("/slow/", 1000, [b"slow message"]),
            ("/raises/", 1011, []),
            ("/denied/", 1008, []),
            ("/missing/", 4404, []),
            ("/closes-first/", 4001, []),
        ],
    )
    def test_by_the_view(self, server: Server, path: str, code: int, messages: list[bytes]) -> None:
        """The end of the view is the end of the connection, with a code that says how it ended."""
        with RawPeer.open(server, path) as peer:
            # Both halves of the closing handshake, as a browser would do it.
            frame = peer.read_frame()
            seen = []
            while frame.opcode != CLOSE:
                seen.append(frame.payload)
                frame = peer.read_frame()
            assert (seen, frame.code) == (messages, code)
            hangs_up = server.kind.name in HANGS_UP_UNREAD
            # Such a server may have hung up before this frame reaches it.
            with contextlib.suppress(ConnectionError if hangs_up else ()):
                peer.send_frame(CLOSE, frame.payload)
                ending = peer.read_to_eof()
                assert ending.frames == []
                assert not ending.reset or hangs_up

    def test_by_a_view_that_breaks_is_logged(self, server: Server) -> None:
        """The log has the traceback, the peer only the code."""
        before = len(server.stderr())
        with RawPeer.open(server, "/raises-after-message/") as peer:
            peer.send_text("go")
            assert peer.read_message() == b"go"
            frame = peer.read_frame()
            assert (frame.code, "broken" in frame.reason) == (1011, False)
            peer.send_frame(CLOSE, frame.payload)
            assert peer.read_to_eof().frames == []
        eventually(lambda: "this view is broken, too" in server.stderr()[before:], 60)
        assert "ERROR django.request" in server.stderr()[before:]

    def test_by_close_with_code_and_reason(self, server: Server) -> None:
        """A code of the application's reaches the client with its reason."""
        with RawPeer.open(server, "/closes-first/") as peer:
            frame = peer.read_frame()
            assert (frame.code, frame.reason) == (4001, "bye")

    @pytest.mark.parametrize("code", [1000, 1001, 1003, 1011, 3000, 4000, 4999])
    def test_code_is_the_view_s_choice(self, server: Server, code: int) -> None:
        """Each code that RFC 6455 lets an endpoint send can be sent."""
        with RawPeer.open(server, "/closes-on-demand/") as peer:
            peer.send_text(str(code))
            assert peer.read_frame().code == code

    @pytest.mark.parametrize("code", [1000, 1001, 3000, 4999])
    def test_by_the_client(self, server: Server, code: int) -> None:
        """The server answers a close frame with the same code; the view sees code and reason."""
        name = f"client-{code}"
        with RawPeer.open(server, f"/reports-the-end/{name}/") as peer:
            peer.send_close(code, "dès maintenant")
            assert peer.read_to_eof().code == code
        ending = eventually(lambda: server.get(f"/ending/{name}/").json()["ending"], 60)
        assert ending == [code, "dès maintenant", True]

    def test_by_the_client_without_a_code(self, server: Server) -> None:
        """An empty close frame is answered by one that is empty, or says 1000."""
        with RawPeer.open(server, "/echo/") as peer:
            peer.send_close(None)
            assert peer.read_to_eof().code in (None, 1000)

    def test_by_the_client_s_fin(self, server: Server) -> None:
        """Without a close frame the view sees the end, and the server ends its half."""
        with RawPeer.open(server, "/reports-the-end/fin/") as peer:
            peer.finish()
            peer.read_to_eof()
        code, _, closed = eventually(lambda: server.get("/ending/fin/").json()["ending"], 60)
        assert (code, closed) in [(1006, True), (None, True)]

    def test_messages_before_the_close_are_delivered(self, server: Server) -> None:
        """Messages sent before the close frame are echoed before the answer to it."""
        with RawPeer.open(server, "/whole/") as peer:
            sent = [b"x" * n for n in range(1, 30)]
            peer.send(b"".join(build_frame(TEXT, payload) for payload in sent))
            answers = [peer.read_message() for _ in sent]
            assert answers == [b"%d" % len(payload) for payload in sent]
            close_politely(peer)

    def test_nothing_is_answered_after_the_close(self, server: Server) -> None:
        """Frames after the client's close frame are ignored."""
        with RawPeer.open(server, "/echo/") as peer:
            after = build_frame(TEXT, b"too late") + build_frame(PING, b"too late")
            peer.send(build_frame(CLOSE, b"\x03\xe8") + after)
            assert peer.read_to_eof().code == 1000


@everywhere
class TestDjango:
    """The request that the view sees is the request that Django made."""

    def test_request(self, server: Server) -> None:
        """URL arguments, query, cookies and user are those of the handshake."""
        with RawPeer.open(
            server, "/request-facts/42/?q=%C3%A9&r=2", headers={"Cookie": "a=1"}
        ) as peer:
            assert json.loads(peer.read_message()) == {
                "number": 42,
                "get": {"q": "é", "r": "2"},
                "user": "AnonymousUser",
                "path": "/request-facts/42/",
                "cookies": {"a": "1"},
                "method": "GET",
                "is_websocket": True,
            }

    def test_session_is_saved(self, server: Server) -> None:
        """Values that the view writes into an existing session are there for the next request."""
        headers = sign_in(server, "sam")
        with RawPeer.open(server, "/session-write/", headers=headers) as peer:
            peer.send_text("remember me")
            assert peer.read_message() == b"kept"
            assert peer.read_frame().code == 1000

        def said() -> str | None:
            return server.get("/plain/", headers).json()["session"].get("said")

        assert eventually(said) == "remember me"

    def test_orm(self, server: Server) -> None:
        """Rows written in the loop are there."""
        with RawPeer.open(server, "/orm/") as peer:
            for name in ("ada", "bob"):
                peer.send_text(name + os.urandom(4).hex())
                assert json.loads(peer.read_message()) == {"there": 1}
            close_politely(peer)

    def test_user(self, server: Server) -> None:
        """The user of the session is the user in the view."""
        with RawPeer.open(server, "/request-facts/1/", headers=sign_in(server, "anna")) as peer:
            assert json.loads(peer.read_message())["user"] == "anna"

    @pytest.mark.parametrize(
        "path",
        [
            "/by-method-decorator/",
            "/around-as-view/",
            "/undecorated/",
            "/over/csrf-exempt/",
            "/over/never-cache/",
            "/over/require-get/",
            "/over/login-required/",
            "/under/csrf-exempt/",
            "/under/never-cache/",
            "/under/require-get/",
            "/under/login-required/",
        ],
    )
    def test_ways_to_decorate(self, server: Server, path: str) -> None:
        """Classes, and Django's own decorators over or under ours, all give an echo."""
        headers = sign_in(server, "vera")
        with RawPeer.open(server, path, headers=headers) as peer:
            peer.send_text("hello")
            assert peer.read_message() == b"hello"
            close_politely(peer)

    def test_class_serves_pages_too(self, server: Server) -> None:
        """A decorated class still answers plain requests."""
        assert server.get("/by-method-decorator/").body == b"a page"

    def test_login_required_over_ours_redirects(self, server: Server) -> None:
        """A stranger is refused before the handshake."""
        response = ask(server, handshake_request("/over/login-required/", server.host))
        assert response.status == 302

    def test_login_required_under_ours_closes(self, server: Server) -> None:
        """Under our decorator the 101 is out already: the connection is closed, no echo."""
        with RawPeer.open(server, "/under/login-required/") as peer:
            assert peer.read_frame().opcode == CLOSE

    def test_never_cache_over_ours_reaches_the_101(self, server: Server) -> None:
        """Headers that an outer decorator sets are in the real 101."""
        with RawPeer.open(server, "/over/never-cache/") as peer:
            assert "no-cache" in peer.response.header("Cache-Control")
            close_politely(peer)


@everywhere
@pytest.mark.parametrize("path", ["/decides/", "/async-decides/"])
class TestViewsThatDecide:
    """With `accept=False` the view runs before the handshake is answered."""

    def test_accepts(self, server: Server, path: str) -> None:
        """The 101 has its headers, and the conversation goes on in the same call."""
        with RawPeer.open(server, f"{path}?do=accept") as peer:
            assert peer.response.header("X-Decided") == "yes"
            peer.send_text("hello")
            assert peer.read_message() == b"hello"
            close_politely(peer)

    def test_refuses_with_a_status(self, server: Server, path: str) -> None:
        """Each way to refuse is a plain HTTP response."""
        for what, status in (("reject", 404), ("deny", 403), ("page", 402)):
            request = handshake_request(f"{path}?do={what}", server.host)
            assert ask(server, request).status == status


@everywhere
class TestWorkers:
    """A WebSocket never costs a worker."""

    def test_http_is_answered_beside_open_sockets(self, server: Server) -> None:
        """With more sockets open than the server has threads, pages are served and echoes come."""
        with RawPeer.open_many(server, "/echo/", 12) as peers:
            for peer in peers:
                assert server.get("/echo/").status == 200
                peer.send_text("still here")
                assert peer.read_message() == b"still here"
            for peer in peers:
                close_politely(peer)

    def test_view_threads_are_named_after_the_view(self, server: Server) -> None:
        """A thread dump says which view waits."""
        with RawPeer.open(server, "/waits/") as peer:
            eventually(
                lambda: any("waits" in name for name in server.status()["threads"]),
                what="a thread with the view's name",
            )
            close_politely(peer)


@on_each_kind
def test_limits_on_handshakes(kind: Kind, own_server: Callable[..., Server]) -> None:
    """
    Over WEBSOCKET_MAX_CONNECTIONS: 503 with Retry-After; a place that is freed can be taken.

    Over WEBSOCKET_MAX_HANDSHAKE_SIZE: 431.
    """
    limits = {"WEBSOCKET_MAX_CONNECTIONS": 3, "WEBSOCKET_MAX_HANDSHAKE_SIZE": 2000}
    server = own_server(kind, settings=limits)

    def accepted() -> bool:
        with RawPeer(server.address) as peer:
            peer.send(handshake_request("/echo/", server.host))
            return peer.read_response().status == 101

    with RawPeer.open_many(server, "/echo/", 3) as peers:
        response = ask(server, handshake_request("/echo/", server.host))
        assert response.status == 503
        assert int(response.header("Retry-After")) > 0
        assert server.get("/echo/").status == 200
        close_politely(peers[0])
        eventually(accepted, 60, "a place that was freed")
    large = handshake_request("/echo/", server.host, headers={"X-Large": "x" * 2000})
    assert ask(server, large).status == 431


@pytest.mark.requires("close at exit")
@pytest.mark.parametrize("kind", [*KINDS, *OLDER_GUNICORNS, *OLDER_GREEN], ids=str)
def test_process_stops(kind: Kind, own_server: Callable[..., Server]) -> None:
    """A process that ends closes the clients of every view; it ends by itself, no traceback."""
    server = own_server(kind)
    with contextlib.ExitStack() as stack:
        peers = {
            path: stack.enter_context(RawPeer.open(server, path))
            for path in ("/echo/", "/waits/", "/push/", "/never-read/")
        }
        # Of clients that gave it up while it started, and broke off their handshake of TLS.
        before = len(server.stderr())
        # wsgiref swallows a Ctrl-C that comes while it is still finishing the request.
        server.at_rest()
        server.send_signal(server.end_signal)
        codes = {path: peer.read_to_eof().code for path, peer in peers.items()}
        assert set(codes.values()) == {1001}, codes
    server.wait(30)
    assert "Traceback" not in server.stderr()[before:]
