"""WebSockets for ordinary Django views, on a native engine."""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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
    from dwebsocket.groups import Group, group, user
    from dwebsocket.groups import group_statistics as group_statistics
    from dwebsocket.handler import WebSocketHandler
    from dwebsocket.operations import metrics, statistics
    from dwebsocket.operations import site_statistics as site_statistics
    from dwebsocket.runners.asgi_apps import asgi_websocket
    from dwebsocket.runners.shutdown import drain
    from dwebsocket.telemetry.records import event_counts as event_counts
    from dwebsocket.typing import WebSocketRequest
    from dwebsocket.users.sign_out import close_user
    from dwebsocket.websocket import WebSocket

    __version__: str

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
    "group",
    "metrics",
    "require_websocket",
    "statistics",
    "user",
    "websocket",
]

# Where each name is found, on first use: most processes of a project need few of them, and a
# command none. `site_statistics`, `group_statistics` and `event_counts` are former names of what
# `statistics` gives.
_HOMES = {
    "runners.asgi_apps": ("asgi_websocket",),
    "client": ("ClientConnection", "aconnect", "connect"),
    "decorators": ("accept_websocket", "require_websocket"),
    "exceptions": (
        *("ConnectionClosed", "ConnectionFailed", "ConnectionTimeout", "GroupUnavailable"),
        *("HandshakeRefused", "InternalError", "InvalidMessage", "PingTimeout", "ReceiveTimeout"),
        *("SendTimeout", "ShuttingDown", "UnsupportedServer", "UsageError", "WebSocketError"),
    ),
    "groups": ("Group", "group", "group_statistics", "user"),
    "handler": ("WebSocketHandler",),
    "operations": ("metrics", "site_statistics", "statistics"),
    "telemetry.records": ("event_counts",),
    "runners.shutdown": ("drain",),
    "users.sign_out": ("close_user",),
    "typing": ("WebSocketRequest",),
    "websocket": ("WebSocket",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return _version()
    if name.startswith("__"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = f"{__name__}.{_HOME_OF.get(name, name)}"
    try:
        found: Any = import_module(home)
    except ModuleNotFoundError as error:
        if error.name != home:
            raise
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None
    if name in _HOME_OF:
        # Next time it is simply there.
        found = globals()[name] = getattr(found, name)
    return found


def _version() -> str:
    from importlib import metadata  # slow to import, and few ask

    try:
        return metadata.version("dwebsocket2")
    except metadata.PackageNotFoundError:
        raise AttributeError("dwebsocket2 is not installed: its version is not known") from None


class _Package(ModuleType):
    """This module: its decorator hides the module of the same name, whichever comes first."""

    @property
    def websocket(self) -> Any:
        """The decorator, which has the class :class:`WebSocket`, as that module has."""
        from dwebsocket.decorators import websocket
        from dwebsocket.websocket import WebSocket

        websocket.__dict__["WebSocket"] = WebSocket
        return websocket

    @websocket.setter
    def websocket(self, module: ModuleType) -> None:
        """Where Python puts that module when it is imported."""


sys.modules[__name__].__class__ = _Package
