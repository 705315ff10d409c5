"""
Undocumented parts of uvicorn: its WebSocket protocols, and the bytes after a handshake.

``send`` is a method of a protocol object, in each of its three implementations, which has
``transport``, of asyncio or uvloop, and ``connections``, the set of the open ones. Version 0.20 or
later.
"""

from __future__ import annotations

import functools
import importlib
import sys
from inspect import signature
from typing import TYPE_CHECKING, Any

from dwebsocket.compat.transports import ServedConnection, keeping

if TYPE_CHECKING:
    from asyncio import WriteTransport

# Of its own protocols, and of the one of this package.
_MODULES = ("uvicorn.protocols.websockets.", "dwebsocket.uvicorn")

_LIFESPAN = "uvicorn.lifespan.on"
_EARLY, _HTTP_VERSION = "_dwebsocket_early", "_dwebsocket_http_version"
_EXTENSIONS = "_dwebsocket_extensions"
# The one protocol whose scope lacks headers of the request: those that wsproto has read.
_WSPROTO = "uvicorn.protocols.websockets.wsproto_impl"


def queued(send: Any) -> int:
    """
    Returns the bytes that wait for the client in the transport behind ``send``.

    ASGI has no call for that. On other servers they are not known: they count as none.
    """
    transport = _transport_of(send)
    return 0 if transport is None else transport.get_write_buffer_size()


def abort(send: Any) -> None:
    """Closes the transport behind ``send`` at once, and drops the bytes that wait in it."""
    if (transport := _transport_of(send)) is not None:
        transport.abort()


def _transport_of(send: Any) -> WriteTransport | None:
    transport = getattr(_protocol_of(send), "transport", None)
    # Check for the methods: transports of uvloop are not derived from asyncio's class.
    calls = ("get_write_buffer_size", "abort")
    return transport if all(callable(getattr(transport, call, None)) for call in calls) else None


def _protocol_of(send: Any) -> Any:
    owner = getattr(send, "__self__", None)
    # The protocol of this package has its events in an object of their own.
    return getattr(owner, "peer", owner)


def config_of(receive: Any) -> Any:
    """
    Returns uvicorn's configuration by the ``receive`` of a lifespan; None on other servers.

    ``receive`` is a method of a ``LifespanOn``, which has ``config``. Where that is missing, this
    process goes on with no connections of others before it has one of its own.
    """
    owner = getattr(receive, "__self__", None)
    return getattr(owner, "config", None) if type(owner).__module__ == _LIFESPAN else None


def worker_of(config: Any) -> Any:
    """
    Returns the worker of gunicorn that uvicorn runs in; None where it runs by itself.

    The worker's method is uvicorn's ``callback_notify``, in ``uvicorn-worker`` 0.2 to 0.4 and in
    ``uvicorn.workers``. Where it is another one, clients get 1001 at gunicorn's reload.
    """
    return getattr(getattr(config, "callback_notify", None), "__self__", None)


class ClientDisconnected(OSError):
    """The client has gone: in place of uvicorn's class of this name."""


class Parts:
    """
    The parts that uvicorn's WebSocket protocols use: the exception, the log lines, the addresses.

    Of ``uvicorn.protocols.utils`` and ``uvicorn.config``, which are imported on first use.
    """

    def __init__(self) -> None:
        from uvicorn.config import Config
        from uvicorn.protocols import utils

        #: What `send` raises for a client that has gone. Before 0.27 uvicorn has no class for it.
        self.disconnected: type[OSError] = getattr(utils, "ClientDisconnected", ClientDisconnected)
        self.client_of = utils.get_remote_addr
        self.server_of = utils.get_local_addr
        self.name_of_client = utils.get_client_addr
        self.target_of = utils.get_path_with_query_string
        #: The default values of the options.
        self.defaults = {
            name: parameter.default for name, parameter in signature(Config).parameters.items()
        }


@functools.cache
def parts() -> Parts:
    """Returns the parts of uvicorn. Raises ImportError without it."""
    return Parts()


def own_protocol(config: Any, *args: Any, **kwargs: Any) -> Any:
    """
    Makes uvicorn's own WebSocket protocol: for connections that it encrypts, and without an engine.

    Raises:
        RuntimeError: The library that it needs is not installed.
    """
    from uvicorn.protocols.websockets.auto import AutoWebSocketsProtocol

    if AutoWebSocketsProtocol is None:
        raise RuntimeError(
            "uvicorn encrypts these connections, or this system has no engine, so its own "
            "WebSocket protocol has to serve them: install websockets or wsproto, or let a proxy "
            "end TLS"
        )
    return AutoWebSocketsProtocol(config, *args, **kwargs)


class UvicornConnection(ServedConnection):
    """See :class:`~dwebsocket.compat.transports.ServedConnection`."""

    server = "uvicorn"

    def __init__(self, protocol: Any) -> None:
        super().__init__(protocol.transport)
        self._protocol = protocol
        # The scope always has 1.1, and with wsproto no extensions.
        self.http_version = protocol.__dict__.get(_HTTP_VERSION)
        self.extensions = protocol.__dict__.get(_EXTENSIONS, "")
        # Has the seconds of ``timeout_graceful_shutdown``.
        self.config = getattr(protocol, "config", None)

    @classmethod
    def find(cls, send: Any) -> UvicornConnection | None:
        """Returns the connection behind an application's ``send``; None on other servers."""
        protocol = _protocol_of(send)
        is_found = type(protocol).__module__.startswith(_MODULES)
        return cls(protocol) if is_found and hasattr(protocol, "connections") else None

    def take_early(self) -> bytes:
        """Takes the bytes after the request, and those that the reader of ``websockets`` has."""
        early: bytes = self._protocol.__dict__.pop(_EARLY, b"")
        reader = getattr(self._protocol, "reader", None)
        if (buffer := getattr(reader, "_buffer", None)) is not None:
            early += bytes(buffer)
            buffer.clear()
        return early

    def abort(self) -> None:
        """Also ends the handshake of ``websockets``, which is a task."""
        if (task := getattr(self._protocol, "handler_task", None)) is not None:
            task.cancel()
            self._protocol.handshake_started_event.set()
        super().abort()

    def _is_left(self) -> bool:
        return self._protocol not in self._protocol.connections


def keep_early_bytes() -> None:
    """Makes uvicorn keep bytes that follow a handshake at once; it drops them."""
    if "uvicorn" not in sys.modules:
        return
    for name, class_name, rest in (
        ("h11_impl", "H11Protocol", _rest_of_h11),
        ("httptools_impl", "HttpToolsProtocol", _rest_of_httptools),
    ):
        try:
            module = importlib.import_module(f"uvicorn.protocols.http.{name}")
        except ImportError:
            # Its parser is not installed.
            continue
        _keep(getattr(module, class_name, None), rest)


def keep_more(protocol: Any, data: bytes) -> int:
    """Keeps bytes that came after those; returns how many there are."""
    kept = vars(protocol)
    kept[_EARLY] = kept.get(_EARLY, b"") + data
    return len(kept[_EARLY])


def _keep(protocol: Any, rest: Any) -> None:
    upgrade = getattr(protocol, "handle_websocket_upgrade", None)
    if upgrade is None or protocol in keeping:
        return
    keeping.add(protocol)

    def keep_and_upgrade(self: Any, *args: Any) -> None:
        early = rest(self)
        upgrade(self, *args)
        if "parser" in vars(self):
            # As uvicorn does at the end of a connection. The two refer to each other: they, and the
            # request, would stay until the garbage collector runs.
            self.parser = None
        websocket = self.transport.get_protocol()
        kept, scope = vars(websocket), getattr(self, "scope", {})
        kept[_HTTP_VERSION] = scope.get("http_version")
        if type(websocket).__module__ == _WSPROTO:
            offers = [
                value.decode("latin-1")
                for name, value in scope.get("headers", ())
                if name == b"sec-websocket-extensions"
            ]
            kept[_EXTENSIONS] = ",".join(offers)
        if early:
            kept[_EARLY] = early

    protocol.handle_websocket_upgrade = keep_and_upgrade


def _rest_of_h11(protocol: Any) -> bytes:
    data, _ = protocol.conn.trailing_data
    return bytes(data)


def _rest_of_httptools(protocol: Any) -> bytes:
    """
    Returns the bytes after the request, which ``data_received`` has in a variable only.

    It handles ``HttpParserUpgrade`` now, whose argument is the number of bytes before them.
    """
    error = sys.exc_info()[1]
    if error is None or error.__traceback__ is None or not error.args:
        return b""
    data = error.__traceback__.tb_frame.f_locals.get("data", b"")
    return bytes(data[error.args[0] :])
