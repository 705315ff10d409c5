"""A handshake whose client the engine takes over from its server, as under WSGI."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from dwebsocket import _core
from dwebsocket.exceptions import UnsupportedServer
from dwebsocket.servers import find_client, prepare_takeover, protocol_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from dwebsocket.servers.contract import Client, Environ
    from dwebsocket.servers.handshake import Opening, Refusal
    from dwebsocket.servers.takeover import Takeover
    from dwebsocket.servers.tls import TlsTakeover


class WsgiHandshake:
    """See :class:`dwebsocket.servers.handshake.Handshake`."""

    has_loop = False
    # Known after `find` and `prepare`.
    client: Client
    _takeover: Takeover | TlsTakeover | None = None

    def __init__(self, method: str, environ: Environ, scope: Mapping[str, Any] | None) -> None:
        """
        Begins with a request.

        Args:
            method: The request's.
            environ: Its ``META``.
            scope: The ASGI scope, when an ASGI server took the handshake for plain HTTP.
        """
        self.offered: list[str] = []
        self._method = method
        self._environ = environ
        self._scope = scope
        self._accept_key = ""

    @property
    def size(self) -> int:
        """Bytes of its path, query and headers."""
        return sum(
            len(name) + len(value)
            for name, value in self._environ.items()
            if (name[:5] == "HTTP_" or name in ("PATH_INFO", "QUERY_STRING"))
            # Middleware may have put other objects there.
            and isinstance(value, str)
        )

    @property
    def body(self) -> tuple[bytes, ...]:
        """Empty; one empty chunk for servers that write the head only after the close."""
        # The placeholder is closed with the response, so the server must write its head before.
        return (b"",) if self.client.head_follows_close else ()

    def validate(self) -> Refusal | None:
        """Validates the headers (RFC 6455 section 4.2.1)."""
        environ = self._environ
        if (refusal := self._validate_version()) is not None:
            return refusal
        # From the environ: Django upper-cases its `request.method`.
        method = environ.get("REQUEST_METHOD", self._method)
        header = environ.get
        status, answer, self.offered = _core.validate_handshake(
            method=method,
            http_version=self._http_version(),
            host=header("HTTP_HOST"),
            content_length=header("CONTENT_LENGTH"),
            transfer_encoding=header("HTTP_TRANSFER_ENCODING"),
            upgrade=header("HTTP_UPGRADE"),
            connection=header("HTTP_CONNECTION"),
            version=header("HTTP_SEC_WEBSOCKET_VERSION"),
            key=header("HTTP_SEC_WEBSOCKET_KEY"),
            protocols=header("HTTP_SEC_WEBSOCKET_PROTOCOL"),
            extensions=header("HTTP_SEC_WEBSOCKET_EXTENSIONS"),
        )
        if status != 101:
            return status, answer
        self._accept_key = answer
        return None

    def _validate_version(self) -> Refusal | None:
        """Refuses what is no connection of its own."""
        if self._http_version() >= (2, 0):
            # HTTP/2 has no Upgrade header to validate: the server's family raises the reason.
            try:
                self.find()
            except UnsupportedServer as error:
                return 501, str(error), "error"
        return None

    def find(self) -> None:
        """
        Finds the client's connection by the server families.

        Raises:
            UnsupportedServer: No family knows the server, or it does not give the client away.
        """
        if self._scope is not None:
            raise UnsupportedServer(
                "No WebSocket on this server: it is an ASGI server that took the handshake for "
                "plain HTTP. Install and enable its WebSocket support (for uvicorn: pip install "
                "websockets, and not --ws none)."
            )
        self.client = find_client(self._environ)

    def prepare(self) -> None:
        """
        Starts the engine, and allocates the descriptors of the exchange.

        Raises:
            OSError: There are no more descriptors or threads, or the client has gone.
        """
        _core.prepare()
        self._takeover = prepare_takeover(self.client)

    def open(self, opening: Opening) -> _core.Connection:
        """
        Takes the client's connection from the server and gives it to the engine.

        Raises:
            OSError, ShuttingDown, ValueError: As :meth:`Handshake.open`.
        """
        headers, subprotocol, options, permit, memberships = opening
        offers = self._environ.get("HTTP_SEC_WEBSOCKET_EXTENSIONS", "")
        compression = None
        if offers and options.compression:
            compression = options.compression.negotiate(offers)
        head = _core.response_head(self._accept_key, subprotocol, headers, compression=compression)
        descriptor, early = self._take_client()
        return _core.adopt(
            descriptor, early, head, permit, options.for_engine, compression, memberships
        )

    def _take_client(self) -> tuple[int, bytes]:
        """As :meth:`dwebsocket.servers.takeover.Takeover.exchange`."""
        assert self._takeover is not None
        return self._takeover.exchange()

    def call(self, function: Callable[[], object]) -> None:
        """Calls ``function`` here: any thread may call :meth:`open`."""
        function()

    def discard(self) -> None:
        """
        Drops all bytes that the server writes to the placeholder.

        Raises:
            OSError: There are no more descriptors.
        """
        assert self._takeover is not None
        self._takeover.discard()

    def finish(self) -> None:
        """Closes the placeholder, if there is one. May be repeated."""
        if self._takeover is not None:
            self._takeover.finish()

    def _http_version(self) -> tuple[int, int]:
        if self._scope is not None:
            protocol = f"HTTP/{self._scope.get('http_version', '')}"
        elif self._environ.get("SERVER_PROTOCOL") == "HTTP/1.1":
            # Reliable as it is. Servers whose value may be wrong, such as eventlet's, say HTTP/1.0.
            return 1, 1
        else:
            protocol = protocol_of(self._environ)
        found = re.fullmatch(r"HTTP/(\d)(?:\.(\d))?", protocol)
        return (int(found[1]), int(found[2] or 0)) if found else (0, 0)
