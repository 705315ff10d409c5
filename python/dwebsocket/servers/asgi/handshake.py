"""A handshake on an ASGI server; and one that the server answers, with what the site decides."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from dwebsocket import _core
from dwebsocket.api.waiting.loop_hub import call_in
from dwebsocket.servers import hosts
from dwebsocket.servers.asgi.carrying import Carriage
from dwebsocket.servers.contract import Client
from dwebsocket.servers.families import gunicorn
from dwebsocket.servers.handshake import Handshake, headers_in

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from dwebsocket.servers.contract import Event, Receive, Send, ShutdownPlanner
    from dwebsocket.servers.handshake import Opening, Refusal

#: Where a request's scope holds its :class:`AsgiHandshake`, from the server to the decorator.
SCOPE_KEY = "dwebsocket.handshake"


class AsgiHandshake(Handshake):
    """
    A handshake on an ASGI server. Belongs to the server's loop.

    Attributes:
        connection: Once it is open.
    """

    has_loop = True

    def __init__(
        self, scope: Mapping[str, Any], method: str = "GET", http_version: str | None = None
    ) -> None:
        """
        Begins with a websocket scope.

        Args:
            http_version: As the client wrote it, where the scope's is not that.
        """
        super().__init__(method, _environ_of(scope, http_version, method), None)
        self.connection: _core.Connection | None = None
        self._header_count = headers_in(scope)
        self._loop = asyncio.get_running_loop()

    @property
    def header_count(self) -> int:
        """The number of its headers."""
        return self._header_count

    def call(self, function: Callable[[], object]) -> None:
        """Calls ``function`` in the server's loop, and waits for it."""
        call_in(self._loop, function)

    async def has_turn(self, timeout: float | None) -> bool:
        """
        Waits until the server has sent its responses before, ``timeout`` seconds at most.

        Returns whether it has. None means 30 seconds.
        """
        return True

    def refuse(self) -> None:
        """Lets the server write a refusal."""

    async def serve(self) -> None:
        """Waits until the server is done with the connection. Then the application ends."""
        raise NotImplementedError


def _shutdown_plan() -> ShutdownPlanner:
    """Returns how this process ends: as the server says that lifespan has told of, if any."""
    host = hosts.find()
    return gunicorn.shutdown_plan() if host is None else host.client.shutdown_plan()


class KeptClient(Handshake):
    """A handshake whose client the server keeps. Nothing is taken from the server."""

    has_loop = True
    client = Client("an ASGI server", -1, bytes, shutdown_plan=_shutdown_plan)

    def prepare(self) -> None:
        """Starts the engine."""
        _core.prepare()

    def discard(self) -> None:
        """Does nothing: the server writes no response besides."""


class CarriedHandshake(KeptClient, AsgiHandshake):
    """A handshake whose connection the server keeps: it speaks the frames."""

    def __init__(
        self, scope: Mapping[str, Any], receive: Receive, send: Send, reason: str = ""
    ) -> None:
        """
        Begins with a websocket scope whose ``websocket.connect`` was received.

        ``reason`` is why the engine does not take the connection over.
        """
        super().__init__(scope)
        self.reason = reason
        self.offered = list(scope.get("subprotocols") or ())
        self._served: Carriage | None = None
        self._receive = receive
        self._send = send

    def _validate(self) -> Refusal | None:
        """Validates the headers again, as the server may be lenient; over HTTP/2 there are none."""
        return super()._validate() if "HTTP_UPGRADE" in self._environ else None

    def find(self) -> None:
        """Does nothing: the server keeps the connection."""

    def open(self, opening: Opening) -> _core.Connection:
        """Makes the server accept. To be called in its loop, whose next turn does it."""
        accept = {
            "type": "websocket.accept",
            "subprotocol": opening.subprotocol,
            "headers": _for_the_101(opening.headers),
        }
        served = Carriage(self._receive, self._send, accept, opening)
        self._served, self.connection = served, served.connection
        # This object lives as long as the connection.
        self._environ = {}
        return self.connection

    async def serve(self) -> None:
        """Waits until the connection, if there is one, is over. Then the application ends."""
        if self._served is not None:
            await self._served.serve()


def no_body() -> Receive:
    """Returns the ``receive`` of a request without a body, whose client never leaves."""
    events = iter([{"type": "http.request", "body": b"", "more_body": False}])

    async def receive() -> Event:
        for event in events:
            return event
        never: asyncio.Future[Event] = asyncio.get_running_loop().create_future()
        return await never

    return receive


def _environ_of(scope: Mapping[str, Any], http_version: str | None, method: str) -> dict[str, Any]:
    """Returns what a handshake is validated by, as a WSGI server has it."""
    environ: dict[str, Any] = {
        "REQUEST_METHOD": method,
        "SERVER_PROTOCOL": f"HTTP/{http_version or scope.get('http_version', '1.1')}",
        "PATH_INFO": scope.get("path", ""),
        "QUERY_STRING": (scope.get("query_string") or b"").decode("latin-1"),
    }
    for name, value in scope.get("headers") or ():
        key = name.decode("latin-1").upper().replace("-", "_")
        if key != "CONTENT_LENGTH":
            key = f"HTTP_{key}"
        text = value.decode("latin-1")
        environ[key] = f"{environ[key]},{text}" if key in environ else text
    # A server may keep headers from its scope that it has read itself.
    if offered := scope.get("subprotocols"):
        environ.setdefault("HTTP_SEC_WEBSOCKET_PROTOCOL", ", ".join(offered))
    return environ


def _for_the_101(headers: list[tuple[str, str]]) -> list[tuple[bytes, bytes]]:
    """Returns the headers for the accepting response, checked as the engine checks them."""
    lines = _core.response_head("", None, headers).split(b"\r\n")
    # The status, and the three headers that are the server's.
    fields = [line.partition(b": ") for line in lines[4:] if line]
    return [(name.lower(), value) for name, _, value in fields]
