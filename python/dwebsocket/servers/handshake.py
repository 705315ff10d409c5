"""
How a handshake becomes a connection, whatever the server.

The client's socket is taken from the server, here and under ASGI in
:mod:`dwebsocket.servers.asgi.native`, or an ASGI server keeps it and speaks the protocol
(:mod:`dwebsocket.servers.asgi.handshake`).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple, Protocol

from dwebsocket import _core
from dwebsocket.compat.django import is_from_test_client
from dwebsocket.exceptions import UnsupportedServer
from dwebsocket.servers import find_client, protocol_of
from dwebsocket.servers.takeover import Takeover
from dwebsocket.servers.tls import TlsTakeover

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Mapping
    from typing import Any

    from dwebsocket.conf import Options
    from dwebsocket.groups.view_groups import Joins
    from dwebsocket.request import Transport
    from dwebsocket.servers.contract import Client, Environ

    # The status, the reason, and two that may be left out: the level of the log, a warning, and the
    # cause for counters, that of the status.
    Refusal = tuple[int, str] | tuple[int, str, str] | tuple[int, str, str, str]


# ``beat=20`` in the URL. One that is no such number is the application's own.
_BEAT = re.compile(r"(?:^|[&?])beat=([1-9]\d{1,2})(?=&|$)")
_MIN_BEAT_S, _MAX_BEAT_S = 10, 300
# Honest clients send fewer. Each is an object that stays in memory with the request.
_MOST_HEADERS = _MOST_OFFERS = 128


def begin_beat(connection: _core.Connection, query: str) -> None:
    """Begins the heartbeat that the page asks for: ``dwebsocket.js`` does so by ``?beat=20``."""
    if (found := _BEAT.search(query)) and _MIN_BEAT_S <= int(found[1]) <= _MAX_BEAT_S:
        connection.begin_beat(int(found[1]))


def headers_in(scope: Mapping[str, Any]) -> int:
    """Counts the headers of an ASGI scope, without those of cookies: HTTP/2 has one for each."""
    return sum(name != b"cookie" for name, _ in scope.get("headers") or ())


class Opening(NamedTuple):
    """
    The facts with which a connection opens.

    Attributes:
        headers: Those of the response, beside the protocol's own.
        subprotocol: One that the client offers.
        options: Those of its view.
        permit: Its place.
        memberships: Groups that it is in from its first moment: each with a name, and the key of
            the member.
    """

    headers: list[tuple[str, str]]
    subprotocol: str | None
    options: Options
    permit: _core.Permit
    memberships: list[tuple[_core.Groups, str, bytes]]


class Moved(Protocol):
    """
    A connection that comes from another process, as far as its opening has to know.

    Attributes:
        websocket_id: Its ``id``, if it has one yet.
        opened_at: When it was opened (Unix time).
        messages: How many it has received and sent in other processes.
        state: The handler's ``state``.
        tick_in: Seconds until its next ``tick``; None without.
        subprotocol: The one that both sides agreed on.
        loop: The event loop of this process's server, where handlers with coroutine functions live.
        rooms: What it keeps of its rooms; None without.
    """

    rooms: dict[str, Any] | None
    websocket_id: str | None
    opened_at: float
    messages: tuple[int, int]
    state: dict[str, Any]
    tick_in: float | None
    subprotocol: str | None
    loop: asyncio.AbstractEventLoop | None

    def joins(self) -> Joins:
        """Returns the groups that it is in."""


class Handshake:
    """
    The steps from one request to its connection, each called once, in this order.

    Here the engine takes the client's socket from the server. Derived classes do so from ASGI
    servers, leave it there, and answer clients of the fallback.

    Attributes:
        offered: The subprotocols that the client offers, once validated.
        client: The client's server, once found.
        transport: The way that messages take.
        has_loop: Whether :meth:`open` is called in an event loop, in which async views also run.
        realm: That of the client's user, once known.
    """

    transport: Transport = "websocket"
    has_loop = False
    realm = ""
    #: The offer of another process, which gives the connection away.
    moved: Moved | None = None
    client: Client
    # Known after `prepare`.
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
        """The bytes of its path, query and headers, as far as the server passes them on."""
        return sum(
            len(name) + len(value)
            for name, value in self._environ.items()
            if (name[:5] == "HTTP_" or name in ("PATH_INFO", "QUERY_STRING"))
            # Middleware may have put other objects there.
            and isinstance(value, str)
        )

    @property
    def header_count(self) -> int:
        """The number of its headers, those of one name as one where the server joins them."""
        if self._scope is not None:
            return headers_in(self._scope)
        return sum(name[:5] == "HTTP_" for name in self._environ)

    @property
    def body(self) -> tuple[bytes, ...]:
        """
        The chunks that the server gets when it iterates over the opened response.

        None; one empty chunk for servers that write the head only after the close.
        """
        # The placeholder is closed with the response, so the server must write its head before.
        return (b"",) if self.client.head_follows_close else ()

    def validate_size(self, largest: int | None) -> Refusal | None:
        """Validates the number of headers, and the size: ``WEBSOCKET_MAX_HANDSHAKE_SIZE``."""
        if (count := self.header_count) > _MOST_HEADERS:
            return 431, f"The handshake has {count} headers, more than {_MOST_HEADERS}."
        if largest is None or (size := self.size) <= largest:
            return None
        limit = f"the {largest} of WEBSOCKET_MAX_HANDSHAKE_SIZE"
        return 431, f"The handshake has {size} bytes, more than {limit}."

    def validate(self) -> Refusal | None:
        """Validates the headers (RFC 6455 section 4.2.1), and the number of subprotocols."""
        refusal = self._validate()
        if refusal is None and len(self.offered) > _MOST_OFFERS:
            return 400, f"a handshake may offer {_MOST_OFFERS} subprotocols at most"
        return refusal

    def _validate(self) -> Refusal | None:
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
        # HTTP/2 has no Upgrade header to validate, and Django's own test client sends no Host: the
        # server's family raises the reason.
        is_without_host = "HTTP_HOST" not in self._environ and is_from_test_client(self._environ)
        if is_without_host or self._http_version() >= (2, 0):
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
        kind = Takeover if self.client.tls is None else TlsTakeover
        self._takeover = kind(self.client)

    def open(self, opening: Opening) -> _core.Connection:
        """
        Accepts, and returns the open connection.

        It is a member of its groups before the client can know that it is open.

        Raises:
            OSError: The connection was lost meanwhile.
            ShuttingDown: The process ends.
            ValueError: Headers that no response may have.
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
        """Takes the client from the server: its descriptor, and the bytes that were read early."""
        assert self._takeover is not None
        return self._takeover.exchange()

    @property
    def is_bound(self) -> bool:
        """Whether the connection cannot go to another process: it has no socket of its own."""
        client = self.__dict__.get("client")
        return client is None or client.tls is not None

    def call(self, function: Callable[[], object]) -> None:
        """Calls ``function`` where :meth:`open` may be called, from any thread of the request."""
        function()

    def discard(self) -> None:
        """
        Drops the bytes that the server writes as its response from now on. To be called when open.

        Raises:
            OSError: There are no more descriptors.
        """
        assert self._takeover is not None
        self._takeover.discard()

    def finish(self) -> None:
        """Releases what is left. May be repeated, and called without the other methods."""
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
