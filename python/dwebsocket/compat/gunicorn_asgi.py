"""
Undocumented parts of gunicorn's ``asgi`` worker: its WebSocket, and the bytes after a handshake.

``send`` is a method of its ``WebSocketProtocol``, which has ``transport``. Since version 26.
"""

from __future__ import annotations

import sys
from typing import Any

from dwebsocket.compat.transports import ServedConnection, keeping

_EARLY = "_dwebsocket_early"


class GunicornConnection(ServedConnection):
    """See :class:`~dwebsocket.compat.transports.ServedConnection`."""

    server = "gunicorn"

    def __init__(self, websocket: Any) -> None:
        super().__init__(websocket.transport)
        self._websocket = websocket

    @classmethod
    def find(cls, send: Any) -> GunicornConnection | None:
        """Returns the connection behind an application's ``send``; None on other servers."""
        websocket = getattr(send, "__self__", None)
        is_found = type(websocket).__module__ == "gunicorn.asgi.websocket"
        return cls(websocket) if is_found and hasattr(websocket, "_buffer") else None

    def hold(self) -> str | None:
        """Also takes what waits for the task that reads frames, which has not begun."""
        if (reason := super().hold()) is not None:
            return reason
        early: bytes = self.transport.get_protocol().__dict__.pop(_EARLY, b"")
        self._early = early + bytes(self._websocket._buffer)
        self._websocket._buffer.clear()
        return None

    def release(self) -> None:
        """Returns to the server what :meth:`hold` has taken."""
        self._websocket._buffer[:0] = self.take_early()
        super().release()

    def take_early(self) -> bytes:
        """Takes the bytes after the request, and those that came before :meth:`hold`."""
        early, self._early = self._early, b""
        return early

    def abort(self) -> None:
        """Also has the WebSocket end without a refusal or a close frame."""
        self._end()
        super().abort()

    def respond(self, response: bytes) -> None:
        """Also has the WebSocket end without a refusal of its own."""
        self._end()
        super().respond(response)

    def _end(self) -> None:
        self._websocket.accepted = self._websocket.closed = True

    def _is_left(self) -> bool:
        return bool(self._websocket._eof)


def keep_early_bytes() -> None:
    """Makes gunicorn keep bytes that follow a handshake at once; it drops them."""
    protocol: Any = getattr(sys.modules.get("gunicorn.asgi.protocol"), "ASGIProtocol", None)
    handle = getattr(protocol, "_handle_websocket", None)
    if handle is None or protocol in keeping:
        return
    keeping.add(protocol)

    async def keep_and_handle(self: Any, *args: Any) -> None:
        remaining = getattr(self._callback_parser, "remaining", bytes)
        self.__dict__[_EARLY] = remaining()
        await handle(self, *args)

    protocol._handle_websocket = keep_and_handle
