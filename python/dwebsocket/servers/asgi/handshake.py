"""A handshake on an ASGI server: the server answers it, with what the site decides."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from dwebsocket import _core
from dwebsocket.api.waiting.loop_hub import call_in
from dwebsocket.servers.asgi.carrying import Carriage
from dwebsocket.servers.contract import Client

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from dwebsocket.api.connection import Connection
    from dwebsocket.conf import Options
    from dwebsocket.servers.asgi.events import Receive, Send
    from dwebsocket.servers.handshake import Headers, Memberships, Refusal

#: Where a request's scope holds its :class:`AsgiHandshake`, from the server to the decorator.
SCOPE_KEY = "dwebsocket.handshake"


class AsgiHandshake:
    """See :class:`dwebsocket.servers.handshake.Handshake`. Belongs to the server's loop."""

    client = Client("an ASGI server", -1, bytes, lambda: None)
    body = ()
    has_loop = True

    def __init__(
        self, scope: Mapping[str, Any], receive: Receive, send: Send, reason: str = ""
    ) -> None:
        """
        Begins with a websocket scope whose ``websocket.connect`` was received.

        ``reason`` is why the engine does not take the connection over.
        """
        self.reason = reason
        self.offered: list[str] = list(scope.get("subprotocols") or ())
        self._scope = scope
        self.connection: Connection | None = None
        self._served: Carriage | None = None
        self._receive = receive
        self._send = send
        self._loop = asyncio.get_running_loop()

    @property
    def size(self) -> int:
        """Bytes of its path, query and headers."""
        scope = self._scope
        headers = [part for header in scope.get("headers") or () for part in header]
        return sum(map(len, (scope["path"], scope.get("query_string") or b"", *headers)))

    def validate(self) -> Refusal | None:
        """Validates the headers again, as the server may be lenient; over HTTP/2 there are none."""
        fields: dict[str, list[str]] = {}
        for name, value in self._scope.get("headers") or ():
            fields.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1"))
        headers = {name: ",".join(values) for name, values in fields.items()}
        if "upgrade" not in headers:
            return None
        status, answer, _ = _core.validate_handshake(
            method="GET",
            http_version=(1, 0) if self._scope.get("http_version") == "1.0" else (1, 1),
            host=headers.get("host"),
            content_length=headers.get("content-length"),
            transfer_encoding=headers.get("transfer-encoding"),
            upgrade=headers["upgrade"],
            connection=headers.get("connection"),
            version=headers.get("sec-websocket-version"),
            key=headers.get("sec-websocket-key"),
            protocols=headers.get("sec-websocket-protocol"),
            extensions=headers.get("sec-websocket-extensions"),
        )
        return None if status == 101 else (status, answer)

    def find(self) -> None:
        """Does nothing: the server keeps the connection."""

    def prepare(self) -> None:
        """
        Starts the engine.

        Raises:
            OSError: There are no more descriptors or threads.
        """
        _core.prepare()

    def open(
        self,
        headers: Headers,
        subprotocol: str | None,
        options: Options,
        permit: _core.Permit,
        memberships: Memberships,
    ) -> Connection:
        """
        Makes the server accept. To be called in its loop, whose next turn does it.

        Raises:
            OSError: The engine cannot be started.
            ValueError: Headers that no response may have.
        """
        accept = {
            "type": "websocket.accept",
            "subprotocol": subprotocol,
            "headers": _for_the_101(headers),
        }
        receive, send = self._receive, self._send
        served = Carriage(receive, send, accept, permit, options.for_engine, memberships)
        self._served, self.connection = served, served.connection
        return self.connection

    def call(self, function: Callable[[], object]) -> None:
        """Calls ``function`` in the server's loop, and waits for it."""
        call_in(self._loop, function)

    def discard(self) -> None:
        """Does nothing: the server writes no response besides the accepted connection."""

    def finish(self) -> None:
        """Does nothing: nothing was allocated."""

    def refuse(self) -> None:
        """Does nothing: the server reads on."""

    async def serve(self) -> None:
        """Waits until the connection, if there is one, is over. Then the application ends."""
        if self._served is not None:
            await self._served.serve()


def _for_the_101(headers: Headers) -> list[tuple[bytes, bytes]]:
    """Returns the headers for the accepting response, checked as the engine checks them."""
    lines = _core.response_head("", None, headers).split(b"\r\n")
    # The status, and the three headers that are the server's.
    fields = [line.partition(b": ") for line in lines[4:] if line]
    return [(name.lower(), value) for name, _, value in fields]
