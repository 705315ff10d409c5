"""Which connections of ASGI servers the engine takes over, and what is validated of them."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import socket
import sys
from collections.abc import Callable, Coroutine
from types import FunctionType, ModuleType
from typing import Any

import pytest
import uvloop

from dwebsocket.operations.doctor import live
from dwebsocket.servers import asgi

SERVERS = ("uvicorn", "hypercorn", "gunicorn", "daphne")
SCOPE = {
    "type": "websocket",
    "path": "/there/",
    "query_string": b"a=1",
    "http_version": "1.1",
    "headers": [
        (b"host", b"testserver"),
        (b"upgrade", b"websocket"),
        (b"connection", b"keep-alive"),
        (b"connection", b"Upgrade"),
        (b"sec-websocket-version", b"13"),
        (b"sec-websocket-key", b"dGhlIHNhbXBsZSBub25jZQ=="),
        (b"sec-websocket-protocol", b"chat, json"),
    ],
    "subprotocols": ["chat", "json"],
}


class Transport:
    """A transport of asyncio, of which only the state matters."""

    def __init__(self, sock: socket.socket | None, *, tls: bool, closing: bool):
        self.extra = {"socket": sock, "sslcontext": object() if tls else None}
        self.get_extra_info = self.extra.get
        self.is_closing = lambda: closing
        self.is_reading = True

    def pause_reading(self) -> None:
        """As asyncio's."""
        self.is_reading = False

    def resume_reading(self) -> None:
        """As asyncio's."""
        self.is_reading = True


class Protocol:
    """A WebSocket protocol of uvicorn, as an application sees it."""

    def __init__(self, transport: Transport) -> None:
        self.transport = transport
        self.connections = {self}

    async def send(self, event: Any) -> None:
        """Never called here."""


Protocol.__module__ = "uvicorn.protocols.websockets.wsproto_impl"


async def receive() -> Any:
    """Never called here."""


def begin(*, tls: bool = False, closing: bool = False, **scope: Any) -> tuple[Any, Transport]:
    """Begin a handshake on such a server."""
    ours, other = socket.socketpair()
    with ours, other:
        transport = Transport(ours, tls=tls, closing=closing)

        async def call() -> Any:
            return asgi.begin({**SCOPE, **scope}, receive, Protocol(transport).send)

        return asyncio.run(call()), transport


def test_plain_connection_is_taken_over() -> None:
    """The server reads no more, until the handshake is refused."""
    handshake, transport = begin()
    assert isinstance(handshake, asgi.NativeHandshake)
    assert not transport.is_reading
    handshake.refuse()
    assert transport.is_reading


@pytest.mark.parametrize("version", ["1.0", "1.1", "1.2", "2.0", "3.0", None])
def test_version_of_a_request_chooses_nothing(version: str | None) -> None:
    """Servers pass on what a client writes; a stream of HTTP/2 or 3 has a number without a dot."""
    handshake, _ = begin(http_version=version)
    assert isinstance(handshake, asgi.NativeHandshake)


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ({"tls": True}, "encrypts"),
        ({"closing": True}, "has gone"),
        ({"http_version": "2"}, "over HTTP/2"),
        ({"http_version": "3"}, "over HTTP/3"),
    ],
    ids=str,
)
def test_others_stay_with_their_server(how: dict[str, Any], reason: str) -> None:
    """It reads on, and the reason is kept for the doctor."""
    handshake, transport = begin(**how)
    assert isinstance(handshake, asgi.CarriedHandshake)
    assert reason in handshake.reason
    assert transport.is_reading


class Server(asyncio.Protocol):
    """A server's protocol on a real transport, with its calls about writing."""

    transport: Any

    def __init__(self) -> None:
        self.connections = {self}
        self.calls: list[str] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep it, as servers do."""
        self.transport = transport

    def pause_writing(self) -> None:
        """Note it."""
        self.calls.append("pause")

    def resume_writing(self) -> None:
        """Note it."""
        self.calls.append("resume")

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it, as uvicorn does."""
        self.calls.append("lost")
        self.connections.clear()

    async def send(self, event: Any) -> None:
        """Never called here."""


Server.__module__ = "uvicorn.protocols.websockets.wsproto_impl"
LOOPS = [asyncio.new_event_loop, uvloop.new_event_loop]
# More than the system takes for a client that reads nothing, and more than servers' own limits.
UNREAD = 2**20
Behind = Callable[[Server, Any, socket.socket], Coroutine[Any, Any, None]]


def behind_a_response(new_loop: Any, case: Behind, *, size: int = UNREAD) -> None:
    """Begin a handshake behind a response of which the client has read nothing."""

    async def call() -> None:
        ours, other = socket.socketpair()
        with ours, other:
            for sock, option in ((ours, socket.SO_SNDBUF), (other, socket.SO_RCVBUF)):
                sock.setsockopt(socket.SOL_SOCKET, option, 4096)
            other.setblocking(False)
            loop = asyncio.get_running_loop()
            _, server = await loop.create_connection(Server, sock=ours)
            server.transport.write(bytes(size))
            await asyncio.sleep(0)
            assert server.transport.get_write_buffer_size() > 0
            handshake = asgi.begin(SCOPE, receive, server.send)
            assert isinstance(handshake, asgi.NativeHandshake)
            assert not server.transport.is_reading()
            await case(server, handshake, other)
            server.transport.abort()

    with contextlib.closing(new_loop()) as loop:
        loop.run_until_complete(call())


@pytest.mark.parametrize("new_loop", LOOPS, ids=lambda new_loop: new_loop.__module__)
@pytest.mark.parametrize("size", [UNREAD, 30_000], ids=["paused", "not paused"])
def test_handshake_behind_a_response_waits(new_loop: Any, size: int) -> None:
    """Until the client has read it; the server sees its own calls only, and has its limits."""

    async def case(server: Server, handshake: Any, client: socket.socket) -> None:
        limits = server.transport.get_write_buffer_limits()
        loop, left = asyncio.get_running_loop(), size
        turn = loop.create_task(handshake.has_turn(None))
        while left:
            assert not turn.done()
            left -= len(await loop.sock_recv(client, left))
        assert await turn
        assert not server.transport.get_write_buffer_size()
        assert server.calls == (["pause", "resume"] if size == UNREAD else [])
        assert server.transport.get_write_buffer_limits() == limits
        assert vars(server).keys() == {"connections", "calls", "transport"}
        handshake.refuse()
        assert server.transport.is_reading()

    behind_a_response(new_loop, case, size=size)


@pytest.mark.parametrize("new_loop", LOOPS, ids=lambda new_loop: new_loop.__module__)
def test_response_that_is_not_read(new_loop: Any) -> None:
    """The connection ends after the time of a handshake, for the server, too."""

    async def case(server: Server, handshake: Any, _: socket.socket) -> None:
        assert not await handshake.has_turn(0.01)
        await handshake.serve()
        assert server.calls == ["pause", "lost"]

    behind_a_response(new_loop, case)


@pytest.mark.parametrize("new_loop", LOOPS, ids=lambda new_loop: new_loop.__module__)
def test_client_that_leaves_a_response(new_loop: Any) -> None:
    """The wait is over."""

    async def case(server: Server, handshake: Any, client: socket.socket) -> None:
        turn = asyncio.get_running_loop().create_task(handshake.has_turn(None))
        await asyncio.sleep(0)
        client.close()
        assert not await asyncio.wait_for(turn, 10)
        await handshake.serve()
        assert server.calls == ["pause", "lost"]

    behind_a_response(new_loop, case)


def test_the_doctor_says_which_way() -> None:
    """Of the engine: all settings are in effect. Of the server: why."""
    native = {"software": "uvicorn (ASGI)", "kept": None}
    (finding,) = live._way(native)
    assert finding.what.startswith("The engine takes the connections over from uvicorn (ASGI)")
    (finding,) = live._way({**native, "kept": "of TLS"})
    assert finding.what.startswith("uvicorn (ASGI) keeps the connections, because of TLS:")
    assert list(live._way({"software": "gunicorn"})) == []


class Wrapper:
    """Stands for the server's ``send``, as that of middleware does."""

    async def send(self, event: Any) -> None:
        """As a method."""

    async def __call__(self, event: Any) -> None:
        """As an object."""


def reason_with(send: Any) -> str:
    """Begin a handshake whose connection the server keeps."""

    async def call() -> Any:
        return asgi.begin(SCOPE, receive, send)

    handshake = asyncio.run(call())
    assert isinstance(handshake, asgi.CarriedHandshake)
    return handshake.reason


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> dict[str, ModuleType]:
    """The modules of a process on a server that is not known."""
    modules = {name: sys.modules[name] for name in sys.modules if name not in SERVERS}
    monkeypatch.setattr(sys, "modules", modules)
    return modules


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize(
    "send",
    [
        functools.wraps(Protocol.send)(lambda event: receive()),
        functools.partial(receive, 1),
        Wrapper().send,
        Wrapper(),
    ],
    ids=["function", "partial", "method", "object"],
)
def test_replaced_send_is_named(server: str, send: Any, loaded: dict[str, ModuleType]) -> None:
    """Middleware may want to see each event: the server keeps the connection, and says why."""
    loaded[server] = ModuleType(server)
    assert reason_with(send) == (
        f"the application gets the `send` of {__name__} in place of the server's (leave that "
        "middleware or tool out for WebSockets)"
    )


@pytest.mark.parametrize(
    "send",
    [len, object(), FunctionType(receive.__code__, {"__name__": "hypercorn.protocol.ws_stream"})],
    ids=["built-in", "object", "its own"],
)
def test_server_that_gives_no_connection(send: Any, loaded: dict[str, ModuleType]) -> None:
    """Nothing stands between it and the application."""
    loaded["hypercorn"] = ModuleType("hypercorn")
    assert "it does not give" in reason_with(send)


@pytest.mark.usefixtures("loaded")
def test_unknown_server_keeps_its_connection() -> None:
    """Its `send` may be any function."""
    assert "it does not give" in reason_with(receive)


def test_judges_as_under_wsgi() -> None:
    """Repeated headers are one, and the size counts path, query and headers."""
    handshake, _ = begin()
    assert handshake.validate() is None
    assert handshake.offered == ["chat", "json"]
    assert handshake.size > len("/there/") + len("a=1")
    malformed, _ = begin(headers=[*SCOPE["headers"][:-2], (b"sec-websocket-key", b"short")])
    status, _ = malformed.validate()
    assert status == 400


def test_headers_are_counted() -> None:
    """Headers of one name count each, those of cookies do not: HTTP/2 has one for each cookie."""
    cookies = [(b"cookie", b"a=1"), (b"cookie", b"b=2")]
    handshake, _ = begin(headers=[*SCOPE["headers"], *cookies])
    assert handshake.header_count == len(SCOPE["headers"])


def test_offers_over_http_2_have_a_limit() -> None:
    """The number of offers is checked where the server has validated all else."""
    offers = [f"v{number}" for number in range(129)]
    few, _ = begin(http_version="2", headers=[], subprotocols=offers[1:])
    assert few.validate() is None
    many, _ = begin(http_version="2", headers=[], subprotocols=offers)
    assert many.validate() == (400, "a handshake may offer 128 subprotocols at most")
