"""Which connections of ASGI servers the engine takes over, and what is validated of them."""

from __future__ import annotations

import asyncio
import functools
import socket
import sys
from types import FunctionType, ModuleType
from typing import Any

import pytest

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

    def __init__(self, sock: socket.socket | None, *, tls: bool, waiting: int, closing: bool):
        self.extra = {"socket": sock, "sslcontext": object() if tls else None}
        self.get_extra_info = self.extra.get
        self.get_write_buffer_size = lambda: waiting
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


def begin(
    *, tls: bool = False, waiting: int = 0, closing: bool = False, **scope: Any
) -> tuple[Any, Transport]:
    """Begin a handshake on such a server."""
    ours, other = socket.socketpair()
    with ours, other:
        transport = Transport(ours, tls=tls, waiting=waiting, closing=closing)

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


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ({"tls": True}, "encrypts"),
        ({"waiting": 1}, "still sending"),
        ({"closing": True}, "has gone"),
        ({"http_version": "2"}, "over HTTP/2"),
    ],
    ids=str,
)
def test_others_stay_with_their_server(how: dict[str, Any], reason: str) -> None:
    """It reads on, and the reason is kept for the doctor."""
    handshake, transport = begin(**how)
    assert isinstance(handshake, asgi.CarriedHandshake)
    assert reason in handshake.reason
    assert transport.is_reading


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
