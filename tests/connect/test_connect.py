"""`dwebsocket.connect`: a client in threads, against a server of others and our own."""

from __future__ import annotations

import copy
import json
import pickle
import threading
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import websockets.exceptions

from dwebsocket import (
    ConnectionClosed,
    ConnectionFailed,
    ConnectionTimeout,
    HandshakeRefused,
    InvalidMessage,
    PingTimeout,
    ReceiveTimeout,
    SendTimeout,
    UsageError,
    connect,
)
from support.far_server import far_server
from support.hostile import Hostile, accepting

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from websockets.datastructures import Headers
    from websockets.sync.server import ServerConnection

    from support.server import Server

MESSAGES = [
    "",
    "grüße",
    b"",
    b"\x00\xff",
    json.dumps([{"id": number, "name": "alice"} for number in range(100)]),
    "水🎉" * 30_000,
    bytes(1 << 20),
    "once more " * 100,
    "once more " * 100,
]


@pytest.fixture(scope="module")
def echo() -> Iterator[str]:
    """A server of `websockets` that echoes."""
    with far_server() as url:
        yield url


@pytest.mark.parametrize("compression", [True, False])
def test_messages_come_back_as_they_were(echo: str, compression: bool) -> None:
    """Text as `str`, binary as `bytes`, of any size, compressed or not."""
    with connect(echo, compression=compression) as websocket:
        assert websocket.is_compressed is compression
        for message in MESSAGES:
            websocket.send(message)
            assert websocket.receive(20) == message
        # All at once: they keep their order.
        for message in MESSAGES:
            websocket.send(message)
        assert [websocket.receive(20) for _ in MESSAGES] == MESSAGES
    assert (websocket.close_code, websocket.closed) == (1000, True)


@pytest.mark.parametrize("path", ["/echo-exact/", "/echo-with-context/"])
def test_our_own_server_echoes(server: Server, path: str) -> None:
    """The same engine on both sides."""
    with connect(server.url(path)) as websocket:
        assert websocket.is_compressed
        for message in MESSAGES:
            websocket.send(message)
            assert websocket.receive(20) == message


def test_bytes_like_objects_are_binary(echo: str) -> None:
    """As `bytes`."""
    with connect(echo) as websocket:
        for message in (b"1", bytearray(b"2"), memoryview(b"3")):
            websocket.send(message)
        assert [websocket.receive(20) for _ in range(3)] == [b"1", b"2", b"3"]
        websocket.send_text(b"text")
        websocket.send_bytes(b"binary")
        assert [websocket.receive(20), websocket.receive(20)] == ["text", b"binary"]
        with pytest.raises(TypeError, match="not int"):
            websocket.send(1)
        with pytest.raises(TypeError, match="not str"):
            websocket.send_bytes("text")
        with pytest.raises(ValueError, match="UTF-8"):
            websocket.send_text(b"\xff")


def test_json(echo: str) -> None:
    """Written as Django does, and read again."""
    with connect(echo) as websocket:
        websocket.send_json({"day": date(2026, 1, 2)})
        assert websocket.receive_json(20) == {"day": "2026-01-02"}
        websocket.send("{")
        with pytest.raises(InvalidMessage):
            websocket.receive_json(20)


def test_the_request_is_what_was_asked_for() -> None:
    """Path, query, Host, Origin, cookies, a login in the URL, and subprotocols."""
    seen: list[Headers] = []

    def tell(connection: ServerConnection) -> None:
        assert connection.request is not None
        seen.append(connection.request.headers)
        connection.send(connection.request.path)

    with far_server(tell, subprotocols=["v2.chat", "v1.chat"]) as url:
        with connect(
            url.replace("//", "//user:p%40ss@") + "/chät?room=a b",
            headers=[("Cookie", "a=1"), ("X-Two", "1"), ("X-Two", "2")],
            origin="https://example.com",
            subprotocols=["v1.chat", "v2.chat"],
        ) as websocket:
            assert websocket.receive(20) == "/ch%C3%A4t?room=a%20b"
        assert websocket.subprotocol in ("v1.chat", "v2.chat")
        assert websocket.headers["upgrade"] == "websocket"
        assert websocket.url.endswith("room=a b")
    headers = seen[0]
    assert headers["Host"] == url.removeprefix("ws://")
    assert headers["Origin"] == "https://example.com"
    assert headers["Cookie"] == "a=1"
    assert headers["Authorization"] == "Basic dXNlcjpwQHNz"
    assert headers.get_all("X-Two") == ["1", "2"]
    assert headers.get_all("Upgrade") == ["websocket"]
    assert headers["Sec-WebSocket-Protocol"] == "v1.chat, v2.chat"


def test_iteration_ends_with_the_connection() -> None:
    """What came before the close is given first."""

    def count(connection: ServerConnection) -> None:
        for number in range(3):
            connection.send(str(number))
        connection.close(4001, "done")

    with far_server(count) as url:
        websocket = connect(url)
        assert list(websocket) == ["0", "1", "2"]
        assert (websocket.close_code, websocket.close_reason) == (4001, "done")
        assert list(connect(url)) == ["0", "1", "2"]
    with pytest.raises(ConnectionClosed) as closed:
        websocket.receive()
    assert (closed.value.code, closed.value.reason, closed.value.by) == (4001, "done", "peer")
    with pytest.raises(ConnectionClosed):
        websocket.send("too late")
    with pytest.raises(ConnectionClosed):
        websocket.ping(1)


def test_close_tells_the_server() -> None:
    """Code and reason, behind all that was sent."""
    closes: list[tuple[list[str | bytes], int | None, str | None]] = []
    is_over = threading.Event()

    def note(connection: ServerConnection) -> None:
        messages = [connection.recv()]
        with pytest.raises(websockets.exceptions.ConnectionClosedError):
            connection.recv()
        closes.append((messages, connection.close_code, connection.close_reason))
        is_over.set()

    with far_server(note) as url:
        websocket = connect(url)
        websocket.send("last words")
        for _ in range(2):
            websocket.close(4000, "enough")
        assert is_over.wait(20)
    assert closes == [(["last words"], 4000, "enough")]
    assert websocket.wait_closed(0)
    with pytest.raises(ValueError, match="1005"):
        websocket.close(1005)


@pytest.mark.parametrize("codes", [(1000, 1003), (1007, 1014), (3000, 4999)], ids=str)
def test_close_takes_the_codes_that_the_pages_name(codes: tuple[int, int]) -> None:
    """The first and the last of each range, and none beside it; the error names the ranges."""
    first, last = codes
    for page in ("connect.md", "views.md"):
        text = (Path(__file__).parents[2] / "docs" / page).read_text()
        assert f"{first}–{last}" in text  # noqa: RUF001
    for code in codes:
        with far_server(lambda connection: connection.recv()) as url:
            with connect(url) as websocket:
                websocket.close(code)
    with far_server(lambda connection: connection.recv()) as url, connect(url) as websocket:
        for code in (first - 1, last + 1):
            with pytest.raises(ValueError, match=f"{first}-{last}"):
                websocket.close(code)


def test_a_forgotten_connection_is_closed() -> None:
    """With 1001: the server does not keep what its client has lost."""
    codes: list[int | None] = []
    is_over = threading.Event()

    def note(connection: ServerConnection) -> None:
        assert list(connection) == []
        codes.append(connection.close_code)
        is_over.set()

    with far_server(note) as url:
        connect(url)
        assert is_over.wait(20)
    assert codes == [1001]


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, pickle.dumps])
def test_a_connection_has_no_copies(echo: str, copied: Callable[[object], object]) -> None:
    """A forgotten one would close the connection."""
    with connect(echo) as websocket:
        with pytest.raises(TypeError, match="a connection has no copies"):
            copied(websocket)
        websocket.send("still open")
        assert websocket.receive(timeout=60) == "still open"


def test_waiting_has_an_end(echo: str) -> None:
    """A timeout leaves the connection usable."""
    with connect(echo) as websocket:
        for timeout in (0, 0.01):
            with pytest.raises(ReceiveTimeout, match=f"within {timeout} s"):
                websocket.receive(timeout)
        assert not websocket.wait_closed(0.01)
        assert websocket.latency is None
        assert 0 < websocket.ping() < 20
        assert websocket.latency is not None
        websocket.send("still here")
        assert websocket.receive(20) == "still here"


def test_threads_may_share_a_connection(echo: str) -> None:
    """One receives while others send; closing wakes it."""
    received: list[str | bytes] = []
    has_all = threading.Event()

    def receive() -> None:
        for message in websocket:
            received.append(message)
            if len(received) == 400:
                has_all.set()

    with connect(echo) as websocket:
        reader = threading.Thread(target=receive)
        reader.start()
        senders = [
            threading.Thread(target=lambda: [websocket.send("x") for _ in range(100)])
            for _ in range(4)
        ]
        for thread in senders:
            thread.start()
        for thread in senders:
            thread.join(20)
        assert has_all.wait(20)
    reader.join(20)
    assert not reader.is_alive()
    assert received == ["x"] * 400


def test_keepalive_finds_a_server_that_is_gone() -> None:
    """Which never answers a ping, though the network is there."""
    stop = threading.Event()

    def silent(request: bytes) -> Iterator[bytes]:
        yield accepting(request)
        stop.wait(20)

    with (
        Hostile(silent) as server,
        connect(server.url(), ping_interval=None) as patient,
        connect(server.url(), ping_interval=0.1, ping_timeout=0.2) as websocket,
    ):
        with pytest.raises(PingTimeout, match=r"no ping within 0\.01 s"):
            patient.ping(0.01)
        with pytest.raises(ConnectionClosed) as closed:
            websocket.receive(20)
        assert closed.value.code == 1006
        assert closed.value.reason == "the server did not answer a ping in time"
        stop.set()


def test_a_server_that_does_not_read_is_waited_for_in_vain() -> None:
    """The error names the options; the connection stays usable."""
    stop = threading.Event()

    def deaf(request: bytes) -> Iterator[bytes]:
        yield accepting(request)
        stop.wait(20)

    with (
        Hostile(deaf) as server,
        connect(server.url(), send_timeout=0.05, send_buffer=1000, compression=False) as websocket,
    ):
        # The system's own buffers take the first of them.
        with pytest.raises(SendTimeout, match="see the options send_buffer and send_timeout"):
            list(map(websocket.send, [bytes(1 << 20)] * 1000))
        assert not websocket.closed
        stop.set()


@pytest.mark.parametrize(
    ("answer", "status", "reason", "body"),
    [
        (b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\nX-Why: no\r\n\r\nno", 403,
         "Forbidden", b"no"),
        (b"HTTP/1.1 404 Not Found\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nno\r\n0\r\n\r\n", 404,
         "Not Found", b"no"),
        (b"HTTP/1.1 302 \r\nLocation: /login\r\nContent-Length: 0\r\n\r\n", 302, "", b""),
        (b"HTTP/1.0 404 Not Found\r\n\r\nold", 404, "Not Found", b"old"),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
         b"HTTP/1.1 403 Forbidden\r\nX-Why: no\r\n\r\nno", 403, "Forbidden", b"no"),
        (b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 200_000, 200, "OK", b"x" * (64 << 10)),
    ],
)  # fmt: skip
def test_a_refusal_is_an_exception(answer: bytes, status: int, reason: str, body: bytes) -> None:
    """With all that the server has said."""
    with Hostile(lambda _: iter([answer])) as server, pytest.raises(HandshakeRefused) as refused:
        connect(server.url())
    error = refused.value
    assert (error.status, error.reason, error.body) == (status, reason, body)
    assert str(error) == f"the server refused the WebSocket with {status} {reason}".rstrip()
    assert error.headers is not None
    if status == 403:
        assert error.headers["x-why"] == "no"


def test_a_server_that_is_not_there() -> None:
    """Says which, and why."""
    with Hostile(lambda _: iter(())) as server:
        url = server.url()
    with pytest.raises(
        ConnectionFailed, match=r"cannot connect to 127.0.0.1 port \d+: .*refused"
    ) as failed:
        connect(url)
    assert failed.value.step == "network"
    with pytest.raises(ConnectionFailed, match=r"cannot find nowhere\.invalid"):
        connect("ws://nowhere.invalid/", open_timeout=60)


def test_a_server_that_does_not_answer() -> None:
    """Within `open_timeout`."""
    stop = threading.Event()

    def mute(_: bytes) -> Iterator[bytes]:
        stop.wait(20)
        yield b""

    with Hostile(mute) as server:
        with pytest.raises(ConnectionTimeout, match=r"did not open a WebSocket within 0.1 s"):
            connect(server.url(), open_timeout=0.1)
        stop.set()


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("http://host/", "write ws://host/path or wss://host/path"),
        ("ws:///path", "no address"),
        ("ws://host:99999/", "no URL"),
        ("ws://host/#part", "fragment"),
        ("ws://user:secret@/", r"'ws:///'"),
        ("ws://user:secret/x@host/", "'ws://host/' is no URL: .* write / . # in a password as %2F"),
        ("ws://user:secret?x@host/", "'ws://host/' is no URL"),
        ("ws://user:secret#x@host/", "'ws://host/' is no URL"),
        ("ws://user:secret@[::1/", r"'ws://\[::1/' is no URL"),
        ("ws://user:secret@host\N{ACCOUNT OF}/", "is no URL"),
        ("ws:/user:secret@host/", "'ws:/host/' is no address"),
        ("user:secret@host/", "'host/' is no address"),
    ],
)
def test_an_invalid_url(url: str, message: str) -> None:
    """Is an error before anything is connected, and tells no password."""
    with pytest.raises(ValueError, match=message) as error:
        connect(url)
    assert "secret" not in str(error.value)


@pytest.mark.parametrize("scheme", ["", "http://", "socks5://"])
@pytest.mark.parametrize("password", ["secret/x", "secret#x", "secret?x"])
def test_an_invalid_proxy(scheme: str, password: str) -> None:
    """Does the same."""
    message = f"proxy: '{scheme}host:1' is no URL"
    with pytest.raises(ValueError, match=message) as error:
        connect("ws://other.example/", proxy=f"{scheme}user:{password}@host:1")
    assert "secret" not in str(error.value)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"colour": "red"}, TypeError, "no option 'colour': it takes subprotocols, headers"),
        ({"subprotocols": "chat"}, TypeError, "subprotocols must be several names"),
        ({"subprotocols": 5}, TypeError, "subprotocols must be several names, each a str, or None"),
        ({"subprotocols": [5]}, TypeError, "subprotocols must be several names, each a str"),
        ({"subprotocols": ["a b"]}, ValueError, "Sec-WebSocket-Protocol"),
        ({"headers": 5}, TypeError, "headers must be a mapping of str to str, or pairs of str"),
        ({"headers": "X: 1"}, TypeError, "headers must be a mapping"),
        ({"headers": ""}, TypeError, "headers must be a mapping"),
        ({"headers": False}, TypeError, "headers must be a mapping"),
        ({"headers": ["ab"]}, TypeError, "headers must be a mapping"),
        ({"headers": [("X", "1", "2")]}, TypeError, "headers must be a mapping"),
        ({"headers": {"X": 1}}, TypeError, "headers must be a mapping"),
        ({"headers": {"X": "a\r\nY: b"}}, ValueError, "the value of X holds"),
        ({"headers": {"X Y": "a"}}, ValueError, "'X Y'|\"X Y\" is not the name"),
        *(
            ({"headers": {name: "x"}}, ValueError, rf"headers: connect\(\) writes '{name}' itself")
            for name in (
                *("Upgrade", "CONNECTION", "sec-websocket-key", "Sec-WebSocket-Protocol"),
                *("Content-Length", "Transfer-Encoding", "Sec-WebSocket-Anything"),
            )
        ),
        ({"open_timeout": -1}, ValueError, "open_timeout must be a number of seconds or None"),
        ({"ping_interval": "5"}, ValueError, "ping_interval must be"),
        ({"max_message_size": 0}, ValueError, "max_message_size must be a number of bytes"),
        ({"max_message_size": 2**70}, ValueError, "max_message_size must be a number of bytes"),
        ({"verify": None}, TypeError, "verify must be True or False, not None"),
        ({"verify": 0}, TypeError, "verify must be True or False, not 0"),
        ({"verify": ""}, TypeError, "verify must be True or False, not ''"),
        ({"compression": None}, TypeError, "compression must be True or False, not None"),
        ({"ca_file": 5}, TypeError, "ca_file must be the path of a file or None, not 5"),
        ({"client_cert": ("a", "b", "c")}, TypeError, "client_cert must be a path, a pair of"),
        ({"client_cert": ("a", None)}, TypeError, "client_cert must be a path, a pair of"),
        ({"origin": 5}, TypeError, "origin must be a str or None, not 5"),
        ({"server_hostname": 5}, TypeError, "server_hostname must be a str or None, not 5"),
        ({"proxy": "socks5://host:1"}, ValueError, "proxy: 'socks5://host:1' is no address of an"),
        ({"proxy": 1}, TypeError, "proxy must be a URL, True or None"),
    ],
)
@pytest.mark.parametrize("scheme", ["ws", "wss"])
def test_an_invalid_option(
    options: dict, error: type[Exception], message: str, scheme: str
) -> None:
    """Names itself, whether TLS is used or not."""
    with pytest.raises(error, match=message):
        connect(f"{scheme}://127.0.0.1:1/", **options)


@pytest.mark.parametrize("options", [{"subprotocols": None}, {"headers": None}, {"origin": None}])
def test_none_is_none_of_them(echo: str, options: dict) -> None:
    """As without the option."""
    with connect(echo, **options) as websocket:
        assert websocket.subprotocol is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ca_file": "/nowhere.pem"}, "ca_file: .*No such file"),
        ({"client_cert": "/nowhere.pem"}, "client_cert: .*No such file"),
        ({"ca_file": "/no\0where.pem"}, "ca_file: .*null byte"),
        ({"ca_file": "/dev/null"}, "ca_file: .* certificates: there is none in the file"),
        ({"client_cert": "/dev/null"}, "client_cert: .* certificate: there is none in the file"),
    ],
)
def test_an_invalid_file(options: dict, message: str) -> None:
    """For TLS only: elsewhere no file is read."""
    with pytest.raises(ValueError, match=message):
        connect("wss://127.0.0.1:1/", **options)


def test_in_an_event_loop_the_twin_is_named() -> None:
    """Before anything is done."""
    import asyncio

    async def main() -> None:
        with pytest.raises(UsageError, match=r"use `await aconnect\(…\)`"):
            connect("ws://127.0.0.1:1/")

    asyncio.run(main())
