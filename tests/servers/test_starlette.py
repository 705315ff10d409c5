"""
Starlette and FastAPI on uvicorn, with the engine as its WebSocket protocol.

The cases are those of Starlette's own tests of its WebSockets, against a real server.
"""

from __future__ import annotations

import base64
import json
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import pytest

from support.plain_server import plain_kind, plain_server
from support.raw_peer import BINARY, CLOSE, TEXT, Frame, RawPeer, handshake_request
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.raw_peer import Response
    from support.server import Server

pytestmark = [
    pytest.mark.extended("they are for sites without Django"),
    pytest.mark.skipif(
        not (find_spec("starlette") and find_spec("fastapi")), reason="pip install fastapi"
    ),
]

KINDS = [
    plain_kind(loop, http, application="project.starlette_asgi:application")
    for loop, http in (("asyncio", "h11"), ("uvloop", "httptools"))
]


@pytest.fixture(scope="module", params=KINDS, ids=str)
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """Start one of them for all tests here."""
    with plain_server(request.param) as server:
        yield server


def ask(server: Server, path: str, headers: dict[str, str | None] | None = None) -> Response:
    """Send a handshake, and read what refuses it."""
    with RawPeer(server.address) as peer:
        peer.send(handshake_request(path, server.host, headers=headers))
        return peer.read_response()


def noted(server: Server, path: str) -> Any:
    """Wait until the endpoint at a path has noted something."""

    def seen() -> Any:
        found = server.get(path).json()
        return None if isinstance(found, dict) and "pid" in found else found

    return eventually(seen, what=path)


def user(name: str) -> dict[str, str | None]:
    """Give the header of a user."""
    return {"Authorization": f"Basic {base64.b64encode(f'{name}:secret'.encode()).decode()}"}


def test_facts(server: Server) -> None:
    """URL, arguments, query, headers, the lifespan's state, the user, and another route's URL."""
    headers = {**user("ada"), "User-Agent": "a test"}
    with RawPeer.open(server, "/facts/lobby?a=%C3%A9&b=2", headers=headers) as peer:
        assert json.loads(peer.read_message()) == {
            "url": server.url("/facts/lobby?a=%C3%A9&b=2"),
            "port": server.port,
            "room": "lobby",
            "query": {"a": "é", "b": "2"},
            "agent": "a test",
            "state": 1,
            "user": "ada",
            "other": server.url("/facts/attic"),
        }
        assert peer.read_frame().code == 1000


@pytest.mark.parametrize(
    ("path", "sent", "answer"),
    [
        ("/echo/text", Frame(TEXT, "héllo".encode()), Frame(TEXT, "héllo".encode())),
        ("/echo/bytes", Frame(BINARY, b"\xff\0"), Frame(BINARY, b"\xff\0")),
        ("/echo/json", Frame(TEXT, b'{"a": 1}'), Frame(TEXT, b'{"message":{"a":1}}')),
        ("/echo/json", Frame(TEXT, '"数据"'.encode()), Frame(TEXT, '{"message":"数据"}'.encode())),
        ("/echo/binary-json", Frame(BINARY, b'{"a": 1}'), Frame(BINARY, b'{"a":1}')),
        ("/endpoints/text", Frame(TEXT, b"a"), Frame(TEXT, b'"a"')),
        ("/endpoints/bytes", Frame(BINARY, b"a"), Frame(BINARY, b"a")),
        ("/endpoints/json", Frame(TEXT, b'{"a": 1}'), Frame(TEXT, b'{"a":1}')),
        ("/endpoints/json", Frame(BINARY, b'{"a": 1}'), Frame(TEXT, b'{"a":1}')),
        ("/endpoints/any", Frame(TEXT, b"a"), Frame(TEXT, b'"a"')),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_messages(server: Server, path: str, sent: Frame, answer: Frame) -> None:
    """Text, bytes and JSON, by calls, by iteration and by classes; also many, and a large one."""
    with RawPeer.open(server, path) as peer:
        peer.send_frame(sent.opcode, sent.payload)
        assert peer.read_frame() == answer
    if path in ("/echo/text", "/echo/bytes"):
        with RawPeer.open(server, path) as peer:
            for _ in range(100):
                peer.send_frame(sent.opcode, sent.payload)
            assert [peer.read_frame() for _ in range(100)] == [answer] * 100
            peer.send_frame(sent.opcode, b"x" * 2**20)
            assert peer.read_message() == b"x" * 2**20
            peer.send_close(1000)
            assert peer.read_to_eof().code == 1000


@pytest.mark.parametrize(
    ("encoding", "sent"),
    [
        ("text", Frame(BINARY, b"a")),
        ("bytes", Frame(TEXT, b"a")),
        ("json", Frame(TEXT, b"no json")),
    ],
    ids=["text", "bytes", "json"],
)
def test_messages_of_another_kind(server: Server, encoding: str, sent: Frame) -> None:
    """A class closes with 1003 what it cannot decode, and has failed."""
    with RawPeer.open(server, f"/endpoints/{encoding}") as peer:
        peer.send_frame(sent.opcode, sent.payload)
        assert peer.read_frame().code == 1003


def test_two_tasks(server: Server) -> None:
    """One reads, the other writes; what it cancels leaves the connection open."""
    with RawPeer.open(server, "/relays") as peer:
        for text in ('{"hello":"world"}', '"enough"'):
            peer.send_text(text)
            assert peer.read_message() == text.encode()
        frame = peer.read_frame()
        assert (frame.code, frame.reason) == (4000, "as you wish")


def test_cancelled_calls(server: Server) -> None:
    """They lose no message, and the connection stays open."""
    with RawPeer.open(server, "/times-out") as peer:
        for text in (b"by a time limit", b"by a group"):
            assert peer.read_message() == text
            peer.send_text("go on")
        assert peer.read_frame().code == 1000


def test_end_by_the_client(server: Server) -> None:
    """`WebSocketDisconnect` has code and reason; to receive behind it is an error."""
    with RawPeer.open(server, "/leaves") as peer:
        peer.send_close(1001, "Going Away")
        assert peer.read_to_eof().code == 1001
    code, reason, error = noted(server, "/leaves")
    assert (code, reason) == (1001, "Going Away")
    assert error.startswith('Cannot call "receive"')


def test_end_of_an_iteration(server: Server) -> None:
    """It just ends."""
    with RawPeer.open(server, "/echo/text?end") as peer:
        peer.send_close(4000)
        peer.read_to_eof()
    assert noted(server, "/echo/text?end") == "over"


def test_a_client_that_vanishes(server: Server) -> None:
    """To send raises `WebSocketDisconnect` with 1006."""
    with RawPeer.open(server, "/sends-for-ever") as peer:
        peer.vanish()
    assert noted(server, "/sends-for-ever") == 1006


def test_end_by_a_class(server: Server) -> None:
    """`on_disconnect` has the client's code, and may close what is closed."""
    with RawPeer.open(server, "/endpoints/any?end") as peer:
        peer.send_close(1001)
        assert peer.read_to_eof().code == 1001
    assert noted(server, "/endpoints/any?end") == 1001


@pytest.mark.parametrize(
    ("path", "code", "reason"),
    [
        ("/closes", 1001, "Going Away"),
        ("/closes-twice", 1000, ""),
        ("/raises?what=websocket&behind", 4003, "not this one"),
        ("/raises?what=custom&behind", 1013, ""),
        ("/breaks?how=accept", 1011, ""),
        ("/breaks?how=send%20mode", 1011, ""),
        ("/breaks?how=receive%20mode", 1011, ""),
        ("/breaks?how=denial", 1011, ""),
    ],
)
def test_ends(server: Server, path: str, code: int, reason: str) -> None:
    """By `close`, by `WebSocketException`, by the application's handlers, and 1011 by a failure."""
    with RawPeer.open(server, path) as peer:
        frame = peer.read_frame()
        assert (frame.opcode, frame.code, frame.reason) == (CLOSE, code, reason)


@pytest.mark.parametrize(
    ("path", "status", "body"),
    [
        ("/refuses", 403, b"Forbidden"),
        ("/nowhere", 403, b"Forbidden"),
        ("/denies?how=plain", 404, b"foo"),
        ("/denies?how=streaming", 403, b"helloworld"),
        ("/denies?how=file", 401, b"from a file"),
        ("/denies?how=empty", 404, b""),
        ("/denies-twice", 500, b"Internal Server Error"),
        ("/denies-without-extension", 403, b"Forbidden"),
        ("/raises?what=websocket", 403, b"Forbidden"),
        ("/raises?what=http", 401, b"Unauthorized"),
        ("/raises?what=custom", 403, b"Forbidden"),
        ("/members", 403, b"Forbidden"),
        ("/breaks?how=at%20once", 500, b"Internal Server Error"),
        ("/breaks?how=receive_text", 500, b"Internal Server Error"),
        ("/breaks?how=receive_bytes", 500, b"Internal Server Error"),
        ("/breaks?how=receive_json", 500, b"Internal Server Error"),
        ("/breaks?how=send", 500, b"Internal Server Error"),
    ],
)
def test_refusals(server: Server, path: str, status: int, body: bytes) -> None:
    """By `close`, by denial responses, by exceptions and by no route."""
    response = ask(server, path)
    assert (response.status, response.body) == (status, body)
    assert response.header_all("content-length") == [str(len(body))]
    if path == "/denies?how=plain":
        assert response.header("x-foo") == "bar"
        cookies = response.header_all("set-cookie")
        assert [cookie.partition(";")[0] for cookie in cookies] == ["a=1", "b=2"]
    if path == "/denies?how=streaming":
        assert noted(server, path) == "behind the response"
    if path == "/denies-without-extension":
        assert "doesn't support" in noted(server, path)
    if path == "/raises?what=http":
        assert response.header("www-authenticate") == "Basic"


def test_decisions(server: Server) -> None:
    """A subprotocol, headers, none, and those of a route's middleware."""
    offers: dict[str, str | None] = {"Sec-WebSocket-Protocol": "soap, wamp"}
    found = []
    for path in ("/agrees", "/endpoints/wamp", "/partial", "/middleware"):
        with RawPeer.open(server, path, headers=offers) as peer:
            assert peer.response is not None
            names = ("Sec-WebSocket-Protocol", "additional", "X-Test")
            found.append([peer.response.header(name) for name in names])
    assert found == [
        ["wamp", "header", None],
        ["wamp", None, None],
        [None, None, None],
        [None, None, "by middleware"],
    ]


def test_authentication(server: Server) -> None:
    """By Starlette's middleware and decorator."""
    with RawPeer.open(server, "/members", headers=user("ada")) as peer:
        assert peer.read_message() == b"hello ada"
    assert ask(server, "/members", {"Authorization": "Basic foobar!"}).status == 403


class TestFastAPI:
    """The same for what FastAPI adds."""

    @pytest.mark.parametrize(
        ("query", "headers"),
        [
            ("?token=t", {}),
            ("", {"Cookie": "session=t"}),
            ("", {"X-Token": "t", "X-Other": "o"}),
        ],
        ids=["query", "cookie", "header"],
    )
    def test_dependencies(self, server: Server, query: str, headers: dict[str, str | None]) -> None:
        """They have the request, and are cleaned up behind the end."""
        path = f"/fastapi/items/{len(headers)}{query}"
        with RawPeer.open(server, path, headers=headers) as peer:
            assert json.loads(peer.read_message()) == {"item": len(headers), "token": "t"}
            peer.send_text("hi")
            assert peer.read_message() == b"hi"
            peer.send_close(1000)
            assert peer.read_to_eof().code == 1000
        assert noted(server, path) == ["opened", "hi", "cleaned up"]

    @pytest.mark.parametrize(
        ("path", "status", "body"),
        [
            ("/fastapi/items/1", 403, b"Forbidden"),
            ("/fastapi/items/one?token=t", 403, b"Forbidden"),
            ("/fastapi/rooms/0", 404, b'{"detail":"no such room"}'),
            ("/fastapi/denies", 402, b'{"detail":"pay first"}'),
            ("/fastapi/nowhere", 403, b"Forbidden"),
        ],
    )
    def test_refusals(self, server: Server, path: str, status: int, body: bytes) -> None:
        """By a dependency, an argument, `HTTPException`, `send_denial_response` and no route."""
        response = ask(server, path)
        assert (response.status, response.body) == (status, body)

    def test_room(self, server: Server) -> None:
        """Visitors hear each other, a page, and who goes."""
        with (
            RawPeer.open(server, "/fastapi/rooms/1") as ada,
            RawPeer.open(server, "/fastapi/rooms/1") as grace,
        ):
            grace.send_text("I am here")
            assert grace.read_message() == b"I am here"
            ada.send_text("hello")
            # The order of their arrival is unknown.
            assert {ada.read_message() for _ in range(2)} >= {b"hello"}
            assert grace.read_message() == b"hello"
            assert server.get("/fastapi/rooms/1/say?text=all").json() == {"told": 2}
            for peer in (ada, grace):
                assert peer.read_message() == b"all"
            grace.send_close(4001)
            assert grace.read_to_eof().code == 4001
            assert ada.read_message() == b"gone with 4001"
