"""
The ASGI servers, which implement the protocol themselves: handshake, connection, and how all end.

Pings, their answers and the limits on what is read are the server's own; ASGI cannot set them.
"""

from __future__ import annotations

from dwebsocket.servers.asgi.closing import all_gone, close_all, drain, leave
from dwebsocket.servers.asgi.connection import AsgiConnection
from dwebsocket.servers.asgi.handshake import SCOPE_KEY, AsgiHandshake

__all__ = [
    "SCOPE_KEY",
    "AsgiConnection",
    "AsgiHandshake",
    "all_gone",
    "close_all",
    "drain",
    "leave",
]
