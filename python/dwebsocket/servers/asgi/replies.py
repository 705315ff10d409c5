"""
The replies to handshakes under ASGI: the ``send`` of a refusal, and HTTP responses.

The protocol for uvicorn (:mod:`dwebsocket.uvicorn`) writes such a response itself.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from dwebsocket import _core
from dwebsocket.compat import granian
from dwebsocket.servers.asgi.closing import Served
from dwebsocket.servers.asgi.native import NativeHandshake

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dwebsocket.servers.asgi.handshake import AsgiHandshake
    from dwebsocket.servers.contract import Event, Send

    Scope = dict[str, Any]
    Headers = list[tuple[bytes, bytes]]

_logger = logging.getLogger("dwebsocket")

#: Headers of a response that are the server's.
OF_CONNECTION = {"connection", "content-length", "keep-alive", "transfer-encoding", "upgrade"}
_WITHOUT_BODY = (204, 304)
#: The bodies of refusals that have no other one.
PHRASES = {
    403: b"Forbidden",
    431: b"The handshake is too large.",
    500: b"Internal Server Error",
    503: b"This server takes no more WebSockets now.",
}
#: The whole response to a handshake of which only its bytes may be known.
FAILURE = (
    b"HTTP/1.1 500 Internal Server Error\r\nContent-Type: text/plain; charset=utf-8\r\n"
    b"Content-Length: 21\r\nConnection: close\r\n\r\nInternal Server Error"
)


def http_response(
    status: int, body: bytes | None, headers: Iterable[tuple[str, str]] | None
) -> tuple[Headers, bytes]:
    """
    Returns the headers and the body of a refusal, without the server's own headers.

    ``body`` is None for the status's own text, ``headers`` where the body is a text of ours.
    """
    if headers is None:
        body = PHRASES.get(status, b"") if body is None else body
        own = [(b"content-type", b"text/plain; charset=utf-8")]
        if status == 426:
            own += [(b"sec-websocket-version", b"13")]
    else:
        own = [
            (name.encode("latin-1"), value.encode("latin-1"))
            for name, value in headers
            if name.lower() not in OF_CONNECTION
        ]
    body = body or b""
    if status not in _WITHOUT_BODY:
        own += [(b"content-length", b"%d" % len(body))]
    return own, body


class Plain:
    """The ``send`` of a request that may be one of the fallback's."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.outer: Send | None = None

    async def __call__(self, event: Event) -> None:
        await self._send(event)


class Reply:
    """The ``send`` of a refusal: an HTTP response where the server can, else a bare 403."""

    def __init__(self, scope: Scope, send: Send, handshake: AsgiHandshake) -> None:
        self._handshake = handshake
        self._served = Served.of(scope)
        self.is_http = "websocket.http.response" in (scope.get("extensions") or {})
        self._send = send
        #: The `send` that a package has put around this one: responses go through it.
        self.outer: Send | None = None
        # granian 2.8 fails on two headers of one name here.
        self._is_granian = granian.is_sender(send)

    @property
    def is_open(self) -> bool:
        """Whether a WebSocket is open already, so that no response can be sent."""
        return self._handshake.connection is not None

    @property
    def is_leaving(self) -> bool:
        """Whether the server, or the process, ends."""
        return _core.is_leaving() or (self._served is not None and self._served.is_leaving)

    async def tell_outer(self) -> None:
        """Tells the `send` around this one that the handshake was accepted."""
        if self.outer is not None and self.is_open:
            await self.outer({"type": "http.response.start", "status": 101, "headers": []})

    async def __call__(self, event: Event) -> None:
        if self.is_open:
            # An event of `tell_outer`: the holder of the connection sends the 101 itself.
            return
        event = {**event, "type": f"websocket.{event['type']}"}
        if self._is_granian and "headers" in event:
            unique = {name.lower(): (name, value) for name, value in event["headers"]}
            event["headers"] = list(unique.values())
        await self._tell(event)

    async def reject(self) -> None:
        """Refuses without a response; servers answer 403."""
        await self._tell({"type": "websocket.close"})

    async def _tell(self, event: Event) -> None:
        self._handshake.refuse()
        try:
            await self._send(event)
        except (OSError, RuntimeError) as error:
            # A server that shuts down may have answered by itself, as uvicorn does with 500.
            if not self.is_leaving:
                raise
            _logger.debug("The server answered a handshake itself while it ends: %s", error)


class _OwnReply(Reply):
    """The refusal on a server without responses to handshakes, whose connection is held."""

    def __init__(self, scope: Scope, send: Send, handshake: NativeHandshake) -> None:
        super().__init__(scope, send, handshake)
        self.is_http = True
        self._native = handshake
        self._start: Event = {}
        self._body = b""

    async def __call__(self, event: Event) -> None:
        if event["type"] == "http.response.start":
            self._start = event
            return
        self._body += event.get("body", b"")
        if not event.get("more_body"):
            self._native.respond(self._start["status"], self._start["headers"], self._body)


def reply_to(scope: Scope, send: Send, handshake: AsgiHandshake) -> Reply:
    """Returns the way in which a server tells its client of a refusal."""
    reply = Reply(scope, send, handshake)
    if reply.is_http or not isinstance(handshake, NativeHandshake):
        return reply
    return _OwnReply(scope, send, handshake)
