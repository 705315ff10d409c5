"""Any ASGI application on uvicorn, with the engine as its WebSocket protocol, without Django."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

from support.plain_server import plain_kind, plain_server
from support.raw_peer import CLOSE, RawPeer, build_frame, handshake_request
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.raw_peer import Response
    from support.server import Server

TEXT = 1


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


def seen(server: Server, name: str) -> object:
    """Return what the application at a path has noted."""
    found = server.get(f"/{name}/").json()
    return None if isinstance(found, dict) and "pid" in found else found


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


def test_the_client_s_close_code_and_reason(server: Server) -> None:
    """The application has them, also when it asks again."""
    with RawPeer.open(server, "/echo/") as peer:
        peer.send_close(4003, "bye")
        assert peer.read_frame().code == 4003
    told = eventually(lambda: seen(server, "echo"))
    assert told == [{"type": "websocket.disconnect", "code": 4003, "reason": "bye"}] * 2


@pytest.mark.parametrize(
    ("path", "code", "reason"),
    [("closes", 4007, "enough"), ("raises", 1011, ""), ("returns", 1000, "")],
)
def test_ends_by_the_application(server: Server, path: str, code: int, reason: str) -> None:
    """Its code and reason; 1011 when it raises, 1000 when it returns."""
    with RawPeer.open(server, f"/{path}/") as peer:
        frame = peer.read_frame()
        assert (frame.opcode, frame.code, frame.payload[2:].decode()) == (CLOSE, code, reason)
    if path == "raises":
        eventually(lambda: "this application is broken" in server.stderr())


def test_scope_subprotocol_and_headers(server: Server) -> None:
    """The lifespan's state, what the client offers, and headers in the 101."""
    with RawPeer(server.address) as peer:
        offers = {"Sec-WebSocket-Protocol": "chat, json"}
        peer.send(handshake_request("/scope/?a=1", server.host, headers=offers))
        response = peer.read_response()
        assert response.status == 101
        assert response.header("Sec-WebSocket-Protocol") == "json"
        assert response.header("x-name") == "value"
        assert response.header("server") == "uvicorn"
        message = peer.read_message()
    assert message == (
        b'{"state": {"number": 7}, "query": "a=1", "offered": ["chat", "json"], '
        b'"extensions": ["websocket.http.response"], "scheme": "ws", "client": "127.0.0.1"}'
    )


@pytest.mark.parametrize(
    ("path", "status", "body"),
    [
        ("refuses", 403, b"Forbidden"),
        ("denies", 402, b"pay first"),
        ("fails", 500, b"Internal Server Error"),
        ("undecided", 500, b"Internal Server Error"),
    ],
)
def test_refusals(server: Server, path: str, status: int, body: bytes) -> None:
    """The application's response, and 500 when it makes none."""
    response = ask(server, f"/{path}/")
    assert (response.status, response.body) == (status, body)
    assert response.header("x-why") == ("money" if path == "denies" else None)


def test_a_client_that_has_gone(server: Server) -> None:
    """To send to it raises an OSError, as the specification has it."""
    with RawPeer.open(server, "/sends_late/") as peer:
        peer.send_close(1000)
        peer.read_to_eof()
    assert eventually(lambda: seen(server, "sends_late")) == "ClientDisconnected"


def test_a_client_that_reads_nothing(server: Server) -> None:
    """The application waits, after about as much as the send buffer holds."""
    with RawPeer.open(server, "/floods/", receive_buffer=4096):
        sent = eventually(lambda: seen(server, "floods"))
    assert isinstance(sent, int)
    assert sent < 20


def test_malformed_handshake(server: Server) -> None:
    """426 for another version; the application is not called."""
    response = ask(server, "/echo/", **{"Sec-WebSocket-Version": "12"})
    assert (response.status, response.header("Sec-WebSocket-Version")) == (426, "13")


def test_settings_from_the_environment() -> None:
    """Origins are judged where they are set; a keyword of uvicorn's counts above the variable."""
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


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("DWEBSOCKET_PING_INTERVAL", "often", "DWEBSOCKET_PING_INTERVAL must be a number"),
        ("DWEBSOCKET_PINGS", "1", "There is no setting DWEBSOCKET_PINGS"),
    ],
)
def test_a_wrong_variable(name: str, value: str, error: str) -> None:
    """The server does not start, and says why."""
    server = plain_server(KINDS[0], **{name: value})
    with pytest.raises((AssertionError, RuntimeError)):
        server.start()
    assert error in server.stderr()
    server.stop()


def test_the_end_of_the_server() -> None:
    """Clients get 1001, and the process ends."""
    with plain_server(KINDS[0]) as server, RawPeer.open_many(server, "/echo/", 20) as peers:
        server.send_signal(signal.SIGTERM)
        for peer in peers:
            frame = peer.read_frame()
            assert (frame.opcode, frame.code) == (CLOSE, 1001)
            peer.send_frame(CLOSE, frame.payload)
        server.wait(30)
        assert "Traceback" not in server.stderr()
