"""WebSockets for ordinary Django views, on a native engine."""

from __future__ import annotations

from dwebsocket.asgi_views import asgi_websocket
from dwebsocket.client import ClientConnection, aconnect, connect
from dwebsocket.decorators import accept_websocket, require_websocket, websocket
from dwebsocket.exceptions import (
    ConnectionClosed,
    ConnectionFailed,
    ConnectionTimeout,
    GroupUnavailable,
    HandshakeRefused,
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
from dwebsocket.operations import metrics, site_statistics, statistics
from dwebsocket.records import event_counts
from dwebsocket.shutdown import drain
from dwebsocket.sign_out import close_user
from dwebsocket.typing import WebSocketRequest
from dwebsocket.websocket import WebSocket

# The decorator hides the module of the same name: `dwebsocket.websocket.WebSocket` is found so.
websocket.__dict__["WebSocket"] = WebSocket

__all__ = [
    "ClientConnection",
    "ConnectionClosed",
    "ConnectionFailed",
    "ConnectionTimeout",
    "Group",
    "GroupUnavailable",
    "HandshakeRefused",
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
    "aconnect",
    "asgi_websocket",
    "close_user",
    "connect",
    "drain",
    "event_counts",
    "group",
    "group_statistics",
    "metrics",
    "require_websocket",
    "site_statistics",
    "statistics",
    "user",
    "websocket",
]
