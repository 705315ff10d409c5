"""
The fallback on an ASGI server, which keeps its connections.

The engine writes a response to one end of a socket pair. From the other end a task reads what the
server is to send, when Django has handled the request: so neither a thread nor Django's handler
waits with it. No more is read than the server's client takes: the rest stays in the engine, which
counts it.
"""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING

from dwebsocket.api.waiting.loop_hub import call_in
from dwebsocket.exceptions import UnsupportedServer
from dwebsocket.servers.asgi.handshake import SCOPE_KEY, KeptClient
from dwebsocket.servers.fallback import EventStreamHandshake, HeldRequest, PollingHandshake

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from dwebsocket import _core
    from dwebsocket.servers.contract import Event, Receive, Send
    from dwebsocket.servers.handshake import Opening

_CHUNK_BYTES = 64 * 1024
_EMPTY = [(b"content-length", b"0")]
_OTHER_HANDLER = (
    'No fallback here: the ASGI application for plain HTTP is not dwebsocket\'s. Add "dwebsocket" '
    "to INSTALLED_APPS, or use dwebsocket.asgi.get_asgi_application() in asgi.py, also as what "
    "serves http"
)


class Exchange:
    """
    One request of the fallback, whose response is sent after Django has handled it.

    Belongs to the server's loop.

    Attributes:
        connection: What the request has opened, if it has.
    """

    def __init__(self, receive: Receive) -> None:
        self.loop = asyncio.get_running_loop()
        self.connection: _core.Connection | None = None
        self._receive = receive
        # The server's next event while it is awaited; its last one for good.
        self._event: asyncio.Future[Event] | None = None
        self._source: socket.socket | None = None
        self._has_failed = False

    @classmethod
    def of(cls, scope: Mapping[str, Any]) -> Exchange:
        """Returns that of an ASGI scope; ``UnsupportedServer`` if another application took it."""
        exchange = scope.get(SCOPE_KEY)
        if not isinstance(exchange, cls):
            raise UnsupportedServer(_OTHER_HANDLER)
        return exchange

    def begin(self) -> int:
        """
        Returns a descriptor to which the response is to be written, up to its end.

        Raises:
            OSError: There are no more descriptors.
        """
        self._source, end = socket.socketpair()
        self._source.setblocking(False)  # noqa: FBT003
        return end.detach()

    def fail(self) -> None:
        """Has the client told to come again, in place of the response that was begun."""
        self._drop()
        self._has_failed = True

    def _drop(self) -> None:
        source, self._source = self._source, None
        if source is not None:
            source.close()

    def close(self) -> None:
        """Drops what was begun, and awaits no event any more."""
        self._drop()
        if self._event is not None:
            self._event.cancel()

    async def receive(self) -> Event:
        """Returns the server's next event, as its ``receive``. May be called anew if cancelled."""
        if self._event is None:
            self._event = asyncio.ensure_future(self._receive())
        # Django cancels it. gunicorn takes that for the end of its client.
        event = await asyncio.shield(self._event)
        if event["type"] != "http.disconnect":
            self._event = None
        return event

    async def _disconnect(self) -> None:
        while (await self.receive())["type"] != "http.disconnect":
            pass

    async def serve(self, send: Send) -> None:
        """Sends the response, if one was begun, until it ends or the client has gone."""
        if self._has_failed:
            headers = [(b"retry-after", b"5"), *_EMPTY]
            await send({"type": "http.response.start", "status": 503, "headers": headers})
            await send({"type": "http.response.body", "body": b""})
        source = self._source
        if source is None:
            return
        tasks = [
            asyncio.ensure_future(self._send(source, send)),
            asyncio.ensure_future(self._disconnect()),
        ]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        for task in done:
            # A server may report that its client has gone.
            if not task.cancelled() and isinstance(error := task.exception(), Exception):
                if not isinstance(error, OSError):
                    raise error

    async def _send(self, source: socket.socket, send: Send) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            if not (chunk := await self.loop.sock_recv(source, _CHUNK_BYTES)):
                # The request was given up.
                await send({"type": "http.response.start", "status": 503, "headers": _EMPTY})
                await send({"type": "http.response.body", "body": b""})
                return
            head += chunk
        head, _, body = head.partition(b"\r\n\r\n")
        # The status, and what is the server's own business.
        fields = [line.partition(b": ") for line in head.split(b"\r\n")[1:]]
        headers = [(name.lower(), value) for name, _, value in fields]
        headers = [(name, value) for name, value in headers if name != b"connection"]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        # A stream has no length: it ends with the connection.
        left = next((int(value) for name, value in headers if name == b"content-length"), None)
        while body := body or await self.loop.sock_recv(source, _CHUNK_BYTES):
            await send({"type": "http.response.body", "body": body, "more_body": True})
            left = left and left - len(body)
            body = b""
        # Without its last part the server ends the connection: the answer was given up.
        if not left:
            await send({"type": "http.response.body", "body": b"", "more_body": False})


class _InExchange(KeptClient):
    """A request of the fallback whose client the server keeps: the first base of its class."""

    _exchange: Exchange

    def find(self) -> None:
        """Finds the exchange."""
        self._exchange = Exchange.of(self._scope or {})

    def open(self, opening: Opening) -> _core.Connection:
        """Begins the response. To be called in the server's loop."""
        try:
            connection = self._exchange.connection = super().open(opening)
        except BaseException:
            self._exchange.fail()
            raise
        return connection

    def _take_client(self) -> tuple[int, bytes]:
        return self._exchange.begin(), b""

    def call(self, function: Callable[[], object]) -> None:
        """Calls ``function`` in the server's loop, and waits for it."""
        call_in(self._exchange.loop, function)


class AsgiEventStreamHandshake(_InExchange, EventStreamHandshake):
    """An :class:`EventStreamHandshake` of a client that the server keeps."""


class AsgiPollingHandshake(_InExchange, PollingHandshake):
    """A :class:`PollingHandshake` of a client that the server keeps."""


class AsgiHeldRequest(_InExchange, HeldRequest):
    """A :class:`HeldRequest` of a client that the server keeps."""
