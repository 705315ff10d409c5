"""
Undocumented parts of hypercorn: a WebSocket's stream, the connection below it, and early bytes.

``send`` is a method of a ``WSStream``, whose ``send`` is one of the ``H11Protocol``, whose ``send``
is one of the ``TCPServer``, which has asyncio's reader and writer. Version 0.18.
"""

from __future__ import annotations

import sys
from typing import Any

from dwebsocket.compat.transports import ServedConnection, keeping

_EARLY = "_dwebsocket_early"
# The bytes that hypercorn reads at once. Where it reads on, a client could send any number of them.
_MOST_EARLY = 2**16


class HypercornConnection(ServedConnection):
    """See :class:`~dwebsocket.compat.transports.ServedConnection`."""

    server = "hypercorn"

    def __init__(self, stream: Any, tcp: Any) -> None:
        super().__init__(tcp.writer.transport)
        self._ws = stream
        self._tcp = tcp
        # Has the seconds for the application's lifespan to end.
        self.config = getattr(tcp, "config", None)

    @classmethod
    def find(cls, send: Any) -> HypercornConnection | None:
        """Returns the connection behind an application's ``send``; None on other servers."""
        stream = _owner(send, "hypercorn.protocol.ws_stream")
        tcp = _tcp_below(stream)
        if tcp is None or not hasattr(getattr(tcp, "writer", None), "transport"):
            return None
        return cls(stream, tcp)

    def take_early(self) -> bytes:
        """Takes the bytes that its stream has kept, and those that its reader has."""
        early: bytes = self._ws.__dict__.pop(_EARLY, b"")
        buffer: bytearray = self._tcp.reader._buffer
        early += bytes(buffer)
        buffer.clear()
        return early

    def _is_left(self) -> bool:
        return bool(self._ws.closed)


def config_of(receive: Any) -> Any:
    """
    Returns hypercorn's configuration by the ``receive`` of a lifespan; None on other servers.

    ``receive`` is a method of a ``Lifespan``, which has ``config``. Where that is missing, this
    process goes on with no connections of others before it has one of its own.
    """
    return getattr(_owner(receive, "hypercorn.asyncio.lifespan"), "config", None)


def context_of(send: Any) -> Any:
    """
    Returns the context of hypercorn's process by an application's ``send``; None on other servers.

    ``TCPServer.context``, whose ``terminate`` is set when the process has had its number of
    requests. Where it is missing, its connections do not wait for another process then.
    """
    for module in ("ws_stream", "http_stream"):
        tcp = _tcp_below(_owner(send, f"hypercorn.protocol.{module}"))
        if hasattr(getattr(tcp, "context", None), "terminate"):
            return tcp.context
    return None


def _tcp_below(stream: Any) -> Any:
    http = _owner(getattr(stream, "send", None), "hypercorn.protocol.h11")
    return _owner(getattr(http, "send", None), "hypercorn.asyncio.tcp_server")


def _owner(method: Any, module: str) -> Any:
    """Returns the object that a method of a class in ``module`` is bound to."""
    owner = getattr(method, "__self__", None)
    return owner if type(owner).__module__ == module else None


def keep_early_bytes() -> None:
    """
    Makes hypercorn keep bytes that follow a handshake at once; it answers 400 to them.

    They are for the application that accepts, as RFC 6455 lets clients send them.
    """
    stream: Any = getattr(sys.modules.get("hypercorn.protocol.ws_stream"), "WSStream", None)
    handle, accept = getattr(stream, "handle", None), getattr(stream, "_accept", None)
    if handle is None or accept is None or stream in keeping:
        return
    keeping.add(stream)

    async def handle_or_keep(self: Any, event: Any) -> None:
        if type(event).__name__ != "Data" or self.closed or self.handshake.accepted:
            await handle(self, event)
            return
        early = self.__dict__.get(_EARLY, b"") + event.data
        if len(early) > _MOST_EARLY or self.handshake.http_version == "2":
            await handle(self, event)
        else:
            self.__dict__[_EARLY] = early

    async def accept_and_read(self: Any, message: Any) -> None:
        await accept(self, message)
        if early := self.__dict__.pop(_EARLY, b""):
            self.connection.receive_data(early)
            await self._handle_events()

    stream.handle, stream._accept = handle_or_keep, accept_and_read
