"""
The ASGI servers: handshake, connection, and how all end.

Where the server is known, the engine takes the connection over (:mod:`.native`). Others keep it and
speak its frames: tasks move its messages between the server and the engine (:mod:`.carrying`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dwebsocket.servers.asgi import native
from dwebsocket.servers.asgi.closing import Served, close_within
from dwebsocket.servers.asgi.handshake import SCOPE_KEY, AsgiHandshake, CarriedHandshake, no_body
from dwebsocket.servers.asgi.hosting import config_of, look_at, note, note_signal
from dwebsocket.servers.asgi.native import NativeHandshake, keep_early_bytes

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dwebsocket.servers.contract import Receive, Send

__all__ = [
    "SCOPE_KEY",
    "AsgiHandshake",
    "CarriedHandshake",
    "NativeHandshake",
    "Served",
    "begin",
    "close_within",
    "config_of",
    "keep_early_bytes",
    "look_at",
    "no_body",
    "note",
    "note_signal",
]


def begin(scope: Mapping[str, Any], receive: Receive, send: Send) -> AsgiHandshake:
    """Begins a handshake with a websocket scope whose ``websocket.connect`` was received."""
    found = native.find(scope, send)
    if isinstance(found, str):
        return CarriedHandshake(scope, receive, send, found)
    return found
