"""WebSockets for ordinary Django views, on a native engine."""

from __future__ import annotations

from dwebsocket.asgi_views import asgi_websocket
from dwebsocket.decorators import accept_websocket, require_websocket, websocket
from dwebsocket.exceptions import (
    ConnectionClosed,
    GroupUnavailable,
    InternalError,
    InvalidMessage,
    PingTimeout,
    ReceiveTimeout,
    SendTimeout,
    ShuttingDown,
    UnsupportedServer,
    UsageError,
    WebSocketError,
)
from dwebsocket.groups import Group, group, group_statistics, user
from dwebsocket.handler import WebSocketHandler
from dwebsocket.records import event_counts
from dwebsocket.shutdown import drain
from dwebsocket.sign_out import close_user
from dwebsocket.typing import WebSocketRequest
from dwebsocket.websocket import WebSocket

# The decorator hides the module of the same name: `dwebsocket.websocket.WebSocket` is found so.
websocket.__dict__["WebSocket"] = WebSocket

__all__ = [
    "ConnectionClosed",
    "Group",
    "GroupUnavailable",
    "InternalError",
    "InvalidMessage",
    "PingTimeout",
    "ReceiveTimeout",
    "SendTimeout",
    "ShuttingDown",
    "UnsupportedServer",
    "UsageError",
    "WebSocket",
    "WebSocketError",
    "WebSocketHandler",
    "WebSocketRequest",
    "accept_websocket",
    "asgi_websocket",
    "close_user",
    "drain",
    "event_counts",
    "group",
    "group_statistics",
    "require_websocket",
    "user",
    "websocket",
]
