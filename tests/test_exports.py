"""Every public name is there, documented, and where existing code looks for it."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

import dwebsocket

if TYPE_CHECKING:
    from types import ModuleType

# Imports of existing code (of the original, and of the tutorials written for it).
OLD_IMPORTS = [
    "from dwebsocket import accept_websocket, require_websocket",
    "from dwebsocket import websocket",
    "from dwebsocket.decorators import accept_websocket, require_websocket",
    "from dwebsocket.decorators import websocket",
    "from dwebsocket.middleware import WebSocketMiddleware",
    "from dwebsocket.websocket import WebSocket",
    "import dwebsocket.websocket; dwebsocket.websocket.WebSocket",
    "import dwebsocket; dwebsocket.websocket.WebSocket",
    "from dwebsocket.factory import WebSocketFactory",
    "from dwebsocket.backends.default.factory import WebSocketFactory",
    "from dwebsocket.backends.default.websocket import DefaultWebSocket",
    "from dwebsocket.backends.default.protocols import WebSocketProtocol13",
    "from dwebsocket.backends.default.protocols import get_websocket_protocol, protocols",
    "from dwebsocket.backends.uwsgi.factory import uWsgiWebSocketFactory, SocketWarp",
    "from dwebsocket.backends.uwsgi.websocket import uWsgiWebSocket",
]

PUBLIC = {
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
}


# They bring a library with them that changes how the whole process works.
GREEN = {"dwebsocket.runners.eventlet", "dwebsocket.runners.gevent"}
# They need a library that need not be installed.
DATABASES = {"dwebsocket.compat.psycopg", "dwebsocket.compat.psycopg2"}
# They need apps that this process has not installed.
APPS = {
    "dwebsocket.admin",
    *(f"dwebsocket.admin_page.{name}" for name in ("live", "page", "tables")),
    "dwebsocket.models",
}


def modules() -> list[ModuleType]:
    """Import every module of the package that any process may import."""
    found = {info.name for info in pkgutil.walk_packages(dwebsocket.__path__, "dwebsocket.")}
    names = sorted(found - GREEN - DATABASES - APPS)
    return [dwebsocket, *(importlib.import_module(name) for name in names)]


def own(thing: Any) -> bool:
    """Whether a class or function is written in this package."""
    return (getattr(thing, "__module__", None) or "").split(".")[0] == "dwebsocket"


def documented() -> list[Any]:
    """Every public class, function, method and property of the package."""
    params = {}
    for module in modules():
        for name, thing in vars(module).items():
            if name.startswith("_") or not own(thing) or not callable(thing):
                continue
            params[f"{thing.__module__}.{getattr(thing, '__qualname__', name)}"] = thing
            if not inspect.isclass(thing) or thing.__module__ == "dwebsocket._core":
                continue
            for member, value in vars(thing).items():
                value = getattr(value, "__func__", value)
                if member.startswith("_") or not (
                    inspect.isfunction(value) or isinstance(value, property)
                ):
                    continue
                params[f"{thing.__module__}.{thing.__qualname__}.{member}"] = value
    return [pytest.param(thing, id=name) for name, thing in sorted(params.items())]


@pytest.mark.parametrize("statement", OLD_IMPORTS)
def test_old_import(statement: str) -> None:
    """Works in a fresh interpreter, whatever else has been imported or not."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", statement], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_public_names() -> None:
    """The names that `from dwebsocket import *` gives, sorted."""
    assert set(dwebsocket.__all__) == PUBLIC
    assert dwebsocket.__all__ == sorted(dwebsocket.__all__)


@pytest.mark.parametrize("module", modules(), ids=lambda module: module.__name__)
def test_all_is_true(module: ModuleType) -> None:
    """Every name in `__all__` exists, and every module says what it is for."""
    for name in getattr(module, "__all__", ()):
        assert hasattr(module, name), name
    assert (module.__doc__ or "").strip()


@pytest.mark.parametrize("thing", documented())
def test_is_documented(thing: Any) -> None:
    """Every public name says what it does."""
    assert (inspect.getdoc(thing) or "").strip()


def test_close_is_close() -> None:
    """The name of the original's base class."""
    assert dwebsocket.WebSocket.is_close is dwebsocket.WebSocket.is_closed


def test_package_is_typed() -> None:
    """Type checkers read our annotations."""
    from importlib import resources

    files = resources.files(dwebsocket)
    assert files.joinpath("py.typed").is_file()
    assert files.joinpath("_core.pyi").is_file()
