"""
Any ASGI application on uvicorn, with the engine as its WebSocket protocol, without Django.

The cases are also those of uvicorn's own tests of its protocols.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from support.plain_server import plain_kind, plain_server
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
    close_payload,
    handshake_request,
)
from support.server import descriptors
from support.waiting import eventually, pause

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.raw_peer import Response
    from support.server import Kind, Server

pytestmark = pytest.mark.extended("it is for sites without Django")

KINDS = [plain_kind("asyncio", "h11"), plain_kind("uvloop", "httptools")]


@pytest.fixture(scope="module", params=KINDS, ids=str)
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """Start one of them for all tests here."""
    with plain_server(request.param) as server:
        yield server


def ask(server: Server, path: str, **headers: str) -> Response:
    """Send a handshake, and read what refuses it."""
    with RawPeer(server.address) as peer:
        peer.send(handshake_request(path, server.host, headers=headers))
        return peer.read_response()


def seen(server: Server, path: str) -> Any:
    """Return what the application at a path has noted."""
    found = server.get(path).json()
    return None if isinstance(found, dict) and "pid" in found else found


def noted(server: Server, path: str, *, but: object = None) -> Any:
    """Wait until the application at a path has noted something, other than `but`."""
    return eventually(lambda: (found := seen(server, path)) != but and found, what=path)


def disconnect(code: int, reason: str = "") -> dict[str, object]:
    """Return the event of an end."""
    return {"type": "websocket.disconnect", "code": code, "reason": reason}


def is_lost(event: dict[str, object]) -> bool:
    """Whether an event is that of an end without a close frame; its reason is our explanation."""
    return (event["type"], event["code"]) == ("websocket.disconnect", 1006)


def test_client_that_asks_has_a_heartbeat(server: Server) -> None:
    """The application sees nothing of it but the query."""
    with RawPeer.open(server, "/echo/?beat=10") as peer:
        assert peer.read_frame() == Frame(TEXT, b"")
        peer.send_text("hi")
        assert peer.read_frame() == Frame(TEXT, b"hi")


def test_text_binary_and_large_messages(server: Server) -> None:
    """As they came."""
    with RawPeer.open(server, "/echo/") as peer:
        for opcode, payload in [(1, b"text"), (2, bytes(range(256))), (1, b""), (2, bytes(2**20))]:
            peer.send_frame(opcode, payload)
            frame = peer.read_frame()
            assert (frame.opcode, frame.payload) == (opcode, payload)


def test_frames_sent_with_the_handshake(server: Server) -> None:
    """None is lost, and their order stays."""
    early = b"".join(build_frame(TEXT, b"%d" % number) for number in range(50))
    with RawPeer.open(server, "/echo/", early=early) as peer:
        assert [peer.read_message() for _ in range(50)] == [b"%d" % number for number in range(50)]


def test_fragments(server: Server) -> None:
    """They are one message."""
    with RawPeer.open(server, "/echo/") as peer:
        for opcode in (TEXT, BINARY):
            peer.send_frame(opcode, b"A" * 512, fin=False)
            peer.send_frame(CONTINUATION, b"A" * 512, fin=False)
            peer.send_frame(CONTINUATION, b"A" * 512)
            assert peer.read_frame() == Frame(opcode, b"A" * 1536)


def test_the_largest_message(server: Server) -> None:
    """16 MiB may come; one byte more closes with 1009, which the application has, too."""
    with RawPeer.open(server, "/echo/") as peer:
        peer.send_frame(BINARY, bytes(2**24))
        assert len(peer.read_message()) == 2**24
    with RawPeer.open(server, "/echo/large/") as peer:
        peer.send(build_frame(BINARY, length=2**24 + 1))
        assert peer.read_frame().code == 1009
    assert noted(server, "/echo/large/")["code"] == 1009


def test_the_client_s_close_code_and_reason(server: Server) -> None:
    """The application gets both."""
    with RawPeer.open(server, "/echo/bye/") as peer:
        peer.send_close(4003, "bye")
        assert peer.read_frame().code == 4003
    assert noted(server, "/echo/bye/") == disconnect(4003, "bye")


def test_an_application_that_asks_again(server: Server) -> None:
    """An application gets the end once, and is ended where it waits for more."""
    with RawPeer.open(server, "/asks_again/") as peer:
        peer.send_close(4003, "bye")
    assert noted(server, "/asks_again/") == [disconnect(4003, "bye"), "ended"]
    assert "CancelledError" not in server.stderr()


def test_a_client_that_vanishes(server: Server) -> None:
    """The application has 1006."""
    with RawPeer.open(server, "/echo/gone/") as peer:
        peer.vanish()
    assert is_lost(noted(server, "/echo/gone/"))


def test_frames_behind_the_client_s_close(server: Server) -> None:
    """They are dropped."""
    with RawPeer.open(server, "/echo/") as peer:
        late = build_frame(PONG) + build_frame(TEXT, b"late")
        peer.send(build_frame(CLOSE, close_payload(1000)) + late)
        assert peer.read_to_eof().code == 1000


def test_messages_before_the_client_s_close(server: Server) -> None:
    """An application that reads late has all of them, then the end."""
    with RawPeer.open(server, "/reads_late/") as peer:
        for text in ("a", "b", "c"):
            peer.send_text(text)
        peer.send_close(1000)
        assert peer.read_frame().code == 1000
        server.get("/go/")
    assert noted(server, "/reads_late/") == ["a", "b", "c", [1000, ""]]


@pytest.mark.parametrize(
    ("path", "code", "reason"),
    [
        ("closes", 4007, "enough"),
        ("raises", 1011, ""),
        ("accepts_twice", 1011, ""),
        ("returns", 1000, ""),
        ("returns_something", 1011, ""),
    ],
)
def test_ends_by_the_application(server: Server, path: str, code: int, reason: str) -> None:
    """Its code and reason; 1011 when it raises or gives a value, 1000 when it returns."""
    with RawPeer.open(server, f"/{path}/") as peer:
        frame = peer.read_frame()
        assert (frame.opcode, frame.code, frame.payload[2:].decode()) == (CLOSE, code, reason)
    if path == "raises":
        eventually(lambda: "this application is broken" in server.stderr())
    if path == "returns_something":
        eventually(lambda: "should return None, but returned 123" in server.stderr())


@pytest.mark.parametrize(
    ("wanted", "code", "reason"),
    [
        ({}, 1000, ""),
        ({"code": None, "reason": None}, 1000, ""),
        ({"code": 1001}, 1001, ""),
        ({"reason": "test"}, 1000, "test"),
        ({"code": 3000, "reason": "é" * 61}, 3000, "é" * 61),
    ],
    ids=lambda value: json.dumps(value)[:20],
)
def test_close_by_the_application(
    server: Server, wanted: dict[str, object], code: int, reason: str
) -> None:
    """The client has the code and the reason, and so has the application behind it."""
    path = f"/closes_as_told/{code}-{len(reason)}-{len(wanted)}/"
    with RawPeer.open(server, path) as peer:
        peer.send_text(json.dumps(wanted))
        frame = peer.read_frame()
        assert (frame.code, frame.reason) == (code, reason)
        peer.send_close(code)
        assert peer.read_to_eof().frames == []
    assert noted(server, path) == disconnect(code, reason)


@pytest.mark.parametrize("wanted", [{"code": 1006}, {"code": 99}, {"reason": "x" * 124}], ids=str)
def test_close_that_cannot_be(server: Server, wanted: dict[str, object]) -> None:
    """The application has failed: 1011."""
    with RawPeer.open(server, "/closes_as_told/") as peer:
        peer.send_text(json.dumps(wanted))
        assert peer.read_frame().code == 1011


def test_events_behind_the_application_s_close(server: Server) -> None:
    """A message raises an OSError; another close does nothing."""
    with RawPeer.open(server, "/sends_behind_close/") as peer:
        assert peer.read_message() == b"123"
        assert peer.read_frame().code == 1000
    assert noted(server, "/sends_behind_close/") == ["ClientDisconnected", None]


def test_scope_subprotocol_and_headers(server: Server) -> None:
    """The lifespan's state, what the client offers, and headers in the 101."""
    with RawPeer(server.address) as peer:
        offers = {"Sec-WebSocket-Protocol": "chat, json"}
        peer.send(handshake_request("/scope/?a=1", server.host, headers=offers))
        response = peer.read_response()
        assert response.status == 101
        assert response.header("Sec-WebSocket-Protocol") == "json"
        assert response.header("x-name") == "value"
        assert response.header_all("server") == ["uvicorn"]
        assert len(response.header_all("date")) == 1
        message = peer.read_message()
    assert message == (
        b'{"number": 7, "query": "a=1", "offered": ["chat", "json"], '
        b'"extensions": ["websocket.http.response"], "scheme": "ws", "client": "127.0.0.1"}'
    )


def test_whole_scope(server: Server) -> None:
    """The path as sent and decoded, headers as they are, and what a proxy says of the client."""
    with RawPeer(server.address) as peer:
        extra = [("X-User", "abraão"), ("x-twice", "1"), ("X-Twice", "2"), ("X-Empty", "")]
        extra += [("X-Forwarded-Proto", "https"), ("X-Forwarded-For", "1.2.3.4")]
        extra += [("Sec-WebSocket-Protocol", "a"), ("Sec-WebSocket-Protocol", "b,c")]
        request = handshake_request("/whole_scope/a%2Fb%C3%A9?q=%20", server.host, extra=extra)
        peer.send(request)
        assert peer.read_response().status == 101
        scope = json.loads(peer.read_message())
    headers = scope.pop("headers")
    assert ["host", server.host] in headers
    assert ["x-user", "abraão".encode().decode("latin-1")] in headers
    assert [value for name, value in headers if name == "x-twice"] == ["1", "2"]
    assert ["x-empty", ""] in headers
    assert scope == {
        "type": "websocket",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "scheme": "wss",
        "server": list(server.address),
        "client": ["1.2.3.4", 0],
        "root_path": "",
        "path": "/whole_scope/a/bé",
        "raw_path": "/whole_scope/a%2Fb%C3%A9",
        "query_string": "q=%20",
        "subprotocols": ["a", "b", "c"],
        "state": {"number": 7, "visits": scope["state"]["visits"]},
        "extensions": {"websocket.http.response": {}},
    }


def test_state_of_the_lifespan(server: Server) -> None:
    """Each connection has a copy, whose values are shared."""
    seen = []
    for _ in range(2):
        with RawPeer.open(server, "/visits/") as peer:
            seen.append(json.loads(peer.read_message()))
            assert peer.read_frame().code == 1000
    assert seen == [{"number": 7, "visits": []}, {"number": 7, "visits": [7]}]


def test_a_handshake_behind_a_page(server: Server) -> None:
    """A connection may have had other requests before."""
    with RawPeer(server.address) as peer:
        for _ in range(3):
            peer.send(f"GET /pid/ HTTP/1.1\r\nHost: {server.host}\r\n\r\n".encode())
            assert peer.read_response().status == 200
        peer.send(handshake_request("/echo/", server.host))
        assert peer.read_response().status == 101
        peer.send_text("at last")
        assert peer.read_message() == b"at last"


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_a_handshake_behind_a_page_that_is_not_read(kind: Kind) -> None:
    """It has a place, as long as a handshake may take; then the application has the end."""
    limits = {"DWEBSOCKET_MAX_CONNECTIONS": "1", "DWEBSOCKET_HANDSHAKE_TIMEOUT": "2"}
    with plain_server(kind, **limits) as server, RawPeer(server.address) as peer:
        peer.send(f"GET /unread/ HTTP/1.1\r\nHost: {server.host}\r\n\r\n".encode())
        peer.sock.recv(1)
        peer.send(handshake_request("/accepts_late/", server.host))
        assert noted(server, "/accepts_late/") == "waiting"
        server.get("/go/")
        assert ask(server, "/echo/").status == 503
        eventually(lambda: ask(server, "/echo/").status == 101)
        assert noted(server, "/accepts_late/", but="waiting") == "ClientDisconnected"
        assert "Traceback" not in server.stderr()


def test_a_handshake_behind_a_page_that_is_read_late(server: Server) -> None:
    """The application has accepted before."""
    with RawPeer(server.address) as peer:
        peer.send(f"GET /unread/ HTTP/1.1\r\nHost: {server.host}\r\n\r\n".encode())
        peer.buffer += peer.sock.recv(1)
        peer.send(handshake_request("/accepts_late/page/", server.host))
        assert noted(server, "/accepts_late/page/") == "waiting"
        server.get("/go/")
        assert [peer.read_response().status for _ in range(2)] == [200, 101]


@pytest.mark.parametrize(("then", "status"), [("accept", 101), ("close", 403), ("fails", 500)])
def test_an_application_that_gives_up_behind_a_page(server: Server, then: str, status: int) -> None:
    """It has a time limit of its own. Nothing is decided then, and it may accept once more."""
    with RawPeer(server.address) as peer:
        peer.send(f"GET /unread/ HTTP/1.1\r\nHost: {server.host}\r\n\r\n".encode())
        peer.buffer += peer.sock.recv(1)
        peer.send(handshake_request(f"/gives_up/{then}/", server.host))
        assert noted(server, f"/gives_up/{then}/") == "given up"
        server.get("/go/")
        assert [peer.read_response().status for _ in range(2)] == [200, status]


@pytest.mark.parametrize("messages", [[b"at last"], []], ids=["send", "close"])
def test_what_another_task_does_while_one_accepts(server: Server, messages: list[bytes]) -> None:
    """It waits until the connection is open, too."""
    path = f"/decides_twice/{'send' if messages else 'close'}/"
    with RawPeer(server.address) as peer:
        peer.send(f"GET /unread/ HTTP/1.1\r\nHost: {server.host}\r\n\r\n".encode())
        peer.buffer += peer.sock.recv(1)
        peer.send(handshake_request(path, server.host))
        assert noted(server, path) == "waiting"
        assert [peer.read_response().status for _ in range(2)] == [200, 101]
        assert [peer.read_message() for _ in messages] == messages
        assert peer.read_frame().code == 4007
        peer.send_close(4007)
    assert noted(server, path, but="waiting") == disconnect(4007)


def test_the_last_place_is_there_for_a_second_accept() -> None:
    """The first one had a wrong header."""
    with plain_server(KINDS[0], DWEBSOCKET_MAX_CONNECTIONS="1") as server:
        assert ask(server, "/accepts_anew/").status == 101


PAGE = "GET /pid/ HTTP/1.1\r\nHost: {host}\r\n\r\n"


def test_a_request_behind_a_handshake(server: Server) -> None:
    """Is no request, whatever it asks for: it is taken for frames, and breaks their rules."""
    page = PAGE.format(host=server.host).encode()
    with RawPeer.open(server, "/echo/", early=page) as peer:
        assert peer.read_frame().code == 1002
        assert peer.read_to_eof().messages == []


@pytest.mark.parametrize("path", ["/refuses/", "/denies/", "/fails/"])
def test_a_request_behind_a_refused_handshake(server: Server, path: str) -> None:
    """Is not answered: the connection ends with the refusal."""
    with RawPeer(server.address) as peer:
        page = PAGE.format(host=server.host).encode()
        peer.send(handshake_request(path, server.host) + page)
        assert peer.read_response().status >= 400
        assert peer.read_to_eof().messages == []


def test_requests_before_a_handshake_in_one_write(server: Server) -> None:
    """No answer to them is taken for frames, nor their bytes."""
    page = PAGE.format(host=server.host).encode()
    with RawPeer(server.address) as peer:
        peer.send(page * 2 + handshake_request("/echo/", server.host) + build_frame(TEXT, b"hi"))
        statuses = [peer.read_response().status]
        while statuses[-1] == 200:
            statuses.append(peer.read_response().status)
        assert statuses[-1] == 101
        assert peer.read_message() == b"hi"
        peer.send_frame(CLOSE, close_payload(1000))
        assert peer.read_frame().code == 1000
        assert peer.read_to_eof().messages == []


def test_handshakes_without_an_end(server: Server) -> None:
    """Cost other clients nothing, and leave nothing."""
    # The engine opens descriptors of its own for the first WebSocket.
    RawPeer.open(server, "/echo/").close()
    before = len(descriptors(server.pid))
    head = handshake_request("/echo/", server.host)
    with contextlib.ExitStack() as slow:
        peers = [slow.enter_context(RawPeer(server.address)) for _ in range(100)]
        for number, peer in enumerate(peers):
            peer.send(head[: number + 1])
        with RawPeer.open(server, "/echo/") as honest:
            honest.send_text("in time")
            assert honest.read_message() == b"in time"
        # One that goes on is served.
        peers[0].send(head[1:])
        assert peers[0].read_response().status == 101
    eventually(lambda: len(descriptors(server.pid)) <= before)


def test_a_flood_before_the_decision(server: Server) -> None:
    """What the application has not accepted is not read without end."""
    with RawPeer(server.address) as peer:
        peer.send(handshake_request("/accepts_late/flood/", server.host))
        assert noted(server, "/accepts_late/flood/") == "waiting"
        peer.sock.settimeout(0.5)
        sent = 0
        with contextlib.suppress(TimeoutError):
            while sent < 2**26:
                sent += peer.sock.send(bytes(2**16))
        assert sent < 2**26
        server.get("/go/")


def test_another_upgrade(server: Server) -> None:
    """It is a request for a page."""
    headers = {"Upgrade": "h2c", "HTTP2-Settings": "AAMAAABkAARAAAAAAAIAAAAA"}
    assert server.get("/pid/", {**headers, "Connection": "Upgrade, HTTP2-Settings"}).status == 200


@pytest.mark.parametrize(
    ("path", "status", "body"),
    [
        ("refuses", 403, b"Forbidden"),
        ("denies", 402, b"pay first"),
        ("fails", 500, b"Internal Server Error"),
        ("undecided", 500, b"Internal Server Error"),
        ("sends_first", 500, b"Internal Server Error"),
        ("agrees_on_another", 500, b"Internal Server Error"),
        ("denies_with_700", 500, b"Internal Server Error"),
        ("denies_with_lines", 500, b"Internal Server Error"),
        ("denies_without_body", 500, b"Internal Server Error"),
        ("denies_twice", 404, b"not here"),
    ],
)
def test_refusals(server: Server, path: str, status: int, body: bytes) -> None:
    """The application's response, and 500 when it makes none."""
    response = ask(server, f"/{path}/")
    assert (response.status, response.body) == (status, body)
    assert response.header("x-why") == ("money" if path == "denies" else None)
    assert response.header_all("content-length") == [str(len(body))]
    assert response.header_all("connection") == ["close"]
    assert response.header("x-other") is None


def test_refusal_in_parts(server: Server) -> None:
    """Headers may come twice and have any bytes; the application has the end behind it."""
    response = ask(server, "/denies_and_waits/")
    assert (response.status, response.body) == (400, b"x" * 10 + b"y" * 10)
    assert response.header_all("set-cookie") == ["a=1", "b=2"]
    assert response.header("x-raw") == "caf\xe9"
    assert response.header("content-length") == "20"
    assert is_lost(noted(server, "/denies_and_waits/"))


def test_end_behind_a_refusal(server: Server) -> None:
    """Without a response, too."""
    assert ask(server, "/refuses_and_waits/").status == 403
    assert is_lost(noted(server, "/refuses_and_waits/"))


def test_two_beginnings_of_a_response(server: Server) -> None:
    """The second one is an error that says what is expected."""
    ask(server, "/denies_twice/")
    assert "expected is websocket.http.response.body" in noted(server, "/denies_twice/")


@pytest.mark.parametrize("way", ["close", "vanish"])
@pytest.mark.parametrize("name", ["waits_first", "accepts_late"])
def test_a_client_that_goes_before_the_decision(server: Server, name: str, way: str) -> None:
    """An application that waits has the end; one that accepts then has it, too, or an OSError."""
    path = f"/{name}/{way}/"
    with RawPeer(server.address) as peer:
        peer.send(handshake_request(path, server.host))
        assert noted(server, path) == "waiting"
        getattr(peer, way)()
    server.get("/go/")
    found = noted(server, path, but="waiting")
    if found != "ClientDisconnected":
        assert is_lost(found)
    assert found != "ClientDisconnected" or name == "accepts_late"


def test_frames_before_the_decision(server: Server) -> None:
    """They wait, however many there are, and come in their order."""
    frames = [build_frame(TEXT, b"%06d" % number * 100) for number in range(300)]
    with RawPeer(server.address) as peer:
        peer.send(handshake_request("/accepts_late/frames/", server.host) + frames[0])
        assert noted(server, "/accepts_late/frames/") == "waiting"
        peer.send(b"".join(frames[1:200]))
        server.get("/go/")
        peer.send(b"".join(frames[200:]))
        assert peer.read_response().status == 101
        assert [int(peer.read_message()[:6]) for _ in frames] == list(range(300))


def test_a_client_that_has_gone(server: Server) -> None:
    """To send to it raises an OSError, as the specification has it."""
    with RawPeer.open(server, "/sends_late/") as peer:
        peer.send_close(1000)
        peer.read_to_eof()
    assert noted(server, "/sends_late/") == "ClientDisconnected"


def test_a_client_that_reads_nothing(server: Server) -> None:
    """The application waits, after about as much as the send buffer holds."""
    with RawPeer.open(server, "/floods/", receive_buffer=4096):
        sent = noted(server, "/floods/")
    assert isinstance(sent, int)
    assert sent < 20


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Sec-WebSocket-Version": "12"}, 426),
        ({"Sec-WebSocket-Version": "11", "Sec-WebSocket-Key": None}, 426),
        ({"Sec-WebSocket-Key": None}, 400),
        ({"Sec-WebSocket-Protocol": ",".join(f"v{number}" for number in range(129))}, 400),
    ],
    ids=["old", "older", "no key", "subprotocols"],
)
def test_malformed_handshake(server: Server, headers: dict[str, str | None], status: int) -> None:
    """426 for another version, 400 otherwise; the application is not called."""
    with RawPeer(server.address) as peer:
        peer.send(handshake_request("/echo/", server.host, headers=headers))
        response = peer.read_response()
    assert response.status == status
    assert response.header("Sec-WebSocket-Version") == ("13" if status == 426 else None)


@pytest.mark.parametrize("name", ["X-Many", "X-{}"])
def test_too_many_headers(server: Server, name: str) -> None:
    """More headers get 431: each would stay in memory as an object."""
    many = [(name.format(number), "") for number in range(128)]
    with RawPeer(server.address) as peer:
        peer.send(handshake_request("/echo/", server.host, extra=many))
        assert peer.read_response().status == 431


def test_refused_handshakes_leave_nothing(server: Server) -> None:
    """Refused handshakes are freed at once, before the garbage collector runs."""
    many = [(f"a{number}", "b") for number in range(5000)]

    def refuse(count: int) -> int:
        for _ in range(count):
            with RawPeer(server.address) as peer:
                peer.send(handshake_request("/echo/", server.host, extra=many))
                assert peer.read_response().status == 431
        return int(Path(f"/proc/{server.pid}/statm").read_text().split()[1]) * 4096

    before = refuse(10)
    assert refuse(100) - before < 12 * 1024 * 1024


@pytest.mark.parametrize(
    ("kind", "option", "error"),
    [
        (KINDS[0], ("--ws-max-size", "-1"), "ValueError"),
        # h11's protocol of uvicorn fails at pages, too.
        (KINDS[1], ("--root-path", "/\xe4"), "UnicodeEncodeError"),
    ],
    ids=["its options", "its scope"],
)
def test_an_error_before_the_application(kind: Kind, option: tuple[str, str], error: str) -> None:
    """It is logged, and the handshake has an answer."""
    kind = dataclasses.replace(kind, options=(*kind.options, *option))
    with plain_server(kind) as server:
        response = ask(server, "/echo/")
        assert (response.status, response.body) == (500, b"Internal Server Error")
        assert error in server.stderr()


@pytest.fixture(scope="module")
def another() -> Iterator[Server]:
    """Start one whose options are not the default ones."""
    options = "--root-path /app --no-server-header --no-date-header --header X-Extra:yes"
    options += " --ws-per-message-deflate false --ws-max-size 2048 --ws-ping-interval 0"
    # What is given to uvicorn counts above the variables.
    with plain_server(
        plain_kind("uvloop", "httptools", *options.split()),
        DWEBSOCKET_PING_INTERVAL="0.1",
        DWEBSOCKET_COMPRESSION="True",
    ) as server:
        yield server


def test_headers_of_uvicorn_s_options(another: Server) -> None:
    """Those that it adds, and those that it leaves out, in the 101 and in refusals."""
    with RawPeer.open(another, "/echo/") as peer:
        assert peer.response is not None
        responses = [peer.response, ask(another, "/refuses/"), ask(another, "/denies/")]
    assert [
        (each.header("server"), each.header("date"), each.header("x-extra")) for each in responses
    ] == [(None, None, "yes")] * 3


def test_root_path(another: Server) -> None:
    """It is in front of both paths."""
    with RawPeer.open(another, "/whole_scope/%41") as peer:
        scope = json.loads(peer.read_message())
    assert [scope[name] for name in ("root_path", "path", "raw_path")] == [
        "/app",
        "/app/whole_scope/A",
        "/app/whole_scope/%41",
    ]


@pytest.mark.parametrize("is_on", [True, False])
def test_compression(server: Server, another: Server, is_on: bool) -> None:
    """It is negotiated, unless uvicorn's option says otherwise."""
    offer = {"Sec-WebSocket-Extensions": "permessage-deflate; client_max_window_bits"}
    with RawPeer.open(server if is_on else another, "/echo/", headers=offer) as peer:
        assert peer.response is not None
        agreed = peer.response.header("Sec-WebSocket-Extensions") or ""
        assert agreed.startswith("permessage-deflate") is is_on


def test_fragments_of_a_large_message(another: Server) -> None:
    """They close with 1009 as soon as they are too much."""
    with RawPeer.open(another, "/echo/") as peer:
        peer.send_frame(BINARY, bytes(1024), fin=False)
        peer.send_frame(CONTINUATION, bytes(1024), fin=False)
        peer.send_frame(CONTINUATION, bytes(1), fin=False)
        assert peer.read_frame().code == 1009


def test_without_pings(another: Server) -> None:
    """None comes where uvicorn's option says so, for longer than the variable has."""
    with RawPeer.open(another, "/echo/") as peer:
        pause(0.3)
        peer.send_text("quiet")
        assert peer.read_frame() == Frame(TEXT, b"quiet")


def test_pings() -> None:
    """uvicorn's options set interval and timeout; without a pong the application has 1006."""
    pings = ("--ws-ping-interval", "0.2", "--ws-ping-timeout")
    with (
        plain_server(plain_kind("asyncio", "h11", *pings, "1.5")) as server,
        RawPeer.open(server, "/echo/answers/") as peer,
    ):
        for _ in range(15):
            frame = peer.read_frame()
            assert frame.opcode == PING
            peer.send_frame(PONG, frame.payload)
    with plain_server(plain_kind("asyncio", "h11", *pings, "0.5")) as server:
        with RawPeer.open(server, "/echo/silent/") as peer:
            assert peer.read_to_eof().frames[0].opcode == PING
        assert is_lost(noted(server, "/echo/silent/"))


def test_settings_from_the_environment() -> None:
    """
    Origins are validated where they are set; a keyword of uvicorn's counts above the variable.
    """
    of = plain_kind("asyncio", "h11", "--ws-max-size", "100")
    with plain_server(
        of, DWEBSOCKET_ALLOWED_ORIGINS="https://friend.example", DWEBSOCKET_MAX_MESSAGE_SIZE="9"
    ) as server:
        assert ask(server, "/echo/", Origin="https://evil.example").status == 403
        for origin in ("https://friend.example", server.url("", "http")):
            with RawPeer.open(server, "/echo/", headers={"Origin": origin}) as peer:
                peer.send_text("x" * 100)
                assert peer.read_message() == b"x" * 100
                peer.send_text("x" * 101)
                assert peer.read_frame().code == 1009


def test_a_wrong_variable() -> None:
    """The server does not start, and says why."""
    server = plain_server(KINDS[0], DWEBSOCKET_PING_INTERVAL="often")
    with pytest.raises((AssertionError, RuntimeError)):
        server.start()
    assert "DWEBSOCKET_PING_INTERVAL must be a number" in server.stderr()
    server.stop()


def test_the_end_of_the_server() -> None:
    """
    Clients get 1001, those without a decision 503, and the process ends.

    Applications have the end, too, and all the time that they need.
    """
    with plain_server(KINDS[0]) as server, contextlib.ExitStack() as stack:
        for path in ("/waits_first/", "/ends_late/"):
            late = stack.enter_context(RawPeer(server.address))
            late.send(handshake_request(path, server.host))
            if path == "/ends_late/":
                assert late.read_response().status == 101
                late.send_close(4001)
            else:
                undecided = late
            noted(server, path)
        peers = stack.enter_context(RawPeer.open_many(server, "/echo/", 20))
        peers += stack.enter_context(RawPeer.open_many(server, "/ends_late/", 1))
        server.send_signal(signal.SIGTERM)
        for peer in peers:
            frame = peer.read_frame()
            assert (frame.opcode, frame.code) == (CLOSE, 1001)
            peer.send_frame(CLOSE, frame.payload)
        assert undecided.read_response().status == 503
        server.wait(30)
        assert "Traceback" not in server.stderr()
        for line in (
            "it waited for {'type': 'websocket.disconnect', 'code': 1006",
            "it has ended behind 4001",
            "it has ended behind 1001",
        ):
            assert line in server.stderr()
