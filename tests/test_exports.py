"""Every public name is there, documented, and where existing code looks for it."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from typing import TYPE_CHECKING, Any

import pytest

import dwebsocket
from support.fresh import failures

if TYPE_CHECKING:
    from pathlib import Path
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
    "group",
    "metrics",
    "require_websocket",
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
    *(f"dwebsocket.operations.admin_page.{name}" for name in ("live", "page", "tables")),
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


def documented() -> dict[str, Any]:
    """Every public class, function, method and property of the package, by its dotted name."""
    found = {}
    for module in modules():
        for name, thing in vars(module).items():
            if name.startswith("_") or not own(thing) or not callable(thing):
                continue
            found[f"{thing.__module__}.{getattr(thing, '__qualname__', name)}"] = thing
            if not inspect.isclass(thing) or thing.__module__ == "dwebsocket._core":
                continue
            for member, value in vars(thing).items():
                value = getattr(value, "__func__", value)
                if member.startswith("_") or not (
                    inspect.isfunction(value) or isinstance(value, property)
                ):
                    continue
                found[f"{thing.__module__}.{thing.__qualname__}.{member}"] = value
    return found


def test_old_imports() -> None:
    """Each works in a process that has imported nothing else of the package."""
    assert failures(OLD_IMPORTS) == {}


def test_names_are_imported_when_they_are_used() -> None:
    """By a command of a project, by the app, and by a model that publishes."""
    count = "assert len([name for name in sys.modules if name.startswith('dwebsocket')])"
    pieces = [
        f"import dwebsocket, sys; {count} == 1",
        f"import dwebsocket, sys; dwebsocket.WebSocketError; {count} == 2",
        f"import dwebsocket.apps, dwebsocket.exceptions, sys; {count} < 30",
        f"from dwebsocket import group; import sys; {count} < 60",
    ]
    assert failures(pieces) == {}


_URLS = """
from django.urls import path
from dwebsocket import accept_websocket

@accept_websocket(text_type=str)
def echo(request):
    for message in request.websocket:
        request.websocket.send(message)

urlpatterns = [path("echo/", echo)]
"""
_PROJECT = """
import contextlib, io, sys
sys.path.insert(0, {folder!r})
from django.conf import settings
settings.configure(
    ALLOWED_HOSTS=["testserver"],
    INSTALLED_APPS=["dwebsocket"],
    ROOT_URLCONF="decorated_urls",
    SECRET_KEY="x",
)

def ours():
    return {{name for name in sys.modules if name.startswith("dwebsocket")}}

"""
_COMMAND = """
from django.core.management import execute_from_command_line
with contextlib.redirect_stdout(io.StringIO()):
    execute_from_command_line(["manage.py", "check"])
assert "decorated_urls" in sys.modules
assert len(ours()) < 40, ours()
# It would cost as much again.
assert "importlib.metadata" not in sys.modules
# One that serves, as `runserver`, gets its first request.
from django.core.signals import request_started
request_started.send(None)
"""
_SETUP = "import django; django.setup(); import decorated_urls\n"
_CONVERSATION = """
from dwebsocket.testing import WebSocketClient
before = ours()
with WebSocketClient().websocket("/echo/") as ws:
    ws.send("hello")
    assert ws.receive() == "hello"
new = ours() - before
assert not new, new
"""


def test_a_command_imports_little_and_a_handshake_nothing(tmp_path: Path) -> None:
    """A command imports decorated views; a process that serves has all, whoever imports them."""
    (tmp_path / "decorated_urls.py").write_text(_URLS)
    project = _PROJECT.format(folder=str(tmp_path))
    assert failures([project + begin + _CONVERSATION for begin in (_COMMAND, _SETUP)]) == {}


def test_decorator_hides_its_module_in_any_order() -> None:
    """A module and a decorator have one name."""
    used = "assert dwebsocket.websocket(lambda request: None).accept_websocket is True"
    pieces = [
        f"import dwebsocket; {used}",
        f"import dwebsocket.websocket; {used}",
        f"import dwebsocket.decorators; import dwebsocket.websocket; {used}",
        f"from dwebsocket.websocket import WebSocket; import dwebsocket; {used}",
        "from dwebsocket import WebSocket, websocket; assert websocket.WebSocket is WebSocket",
        "import dwebsocket; assert dwebsocket.decorators.websocket is dwebsocket.websocket",
        "import dwebsocket; assert dwebsocket.signals.websocket_opened",
    ]
    assert failures(pieces) == {}


def test_what_needs_no_import_of_its_own() -> None:
    """A process that serves is asked for its numbers; one that publishes hears of sign-outs."""
    settings = "from django.conf import settings; settings.configure(); import django, sys"
    pieces = [
        f"{settings}; django.setup(); from dwebsocket import accept_websocket; "
        "from dwebsocket.telemetry import tally; "
        "tally.refused(403, 'origin'); assert 'dwebsocket.operations.survey' in sys.modules",
        f"{settings}; django.setup(); from dwebsocket import group; "
        "from django.core.signals import request_started; request_started.send(None); "
        "request_started.send(None); from dwebsocket.users import sign_out; "
        "assert sign_out.listen.cache_info().misses == 1",
        f"{settings}; from dwebsocket import signals; told = []; "
        "signals.member_left.connect(lambda sender, **_: told.append(sender), weak=False); "
        "signals.send(signals.member_left, None, None); "
        "from dwebsocket import WebSocket; assert told == [WebSocket]",
    ]
    assert failures(pieces) == {}


def test_two_first_requests_at_once() -> None:
    """One imports the package for numbers while the other one's WebSocket opens."""
    piece = """
from django.conf import settings; settings.configure()
import django, sys, threading, time; django.setup()
from dwebsocket.handshake import preloading
from dwebsocket.telemetry import tally

def on_call(frame, event, argument):
    path = frame.f_code.co_filename if frame.f_code.co_name == "<module>" else ""
    if event == "call" and path.endswith("survey.py"):
        begun.set()
    elif event == "call" and path.endswith("scraping.py"):
        other.start()
        while not begun.is_set() and not waits_for_a_module():
            time.sleep(0.001)

def waits_for_a_module():
    return getattr(sys._current_frames().get(other.ident), "f_code", None) is acquire.__code__

def count():
    try:
        tally.refused(403, "origin")
    except BaseException as error:
        failed.append(error)

acquire = sys.modules["importlib._bootstrap"]._ModuleLock.acquire
begun, failed = threading.Event(), []
other = threading.Thread(target=count)
threading.setprofile(on_call)
sys.setprofile(on_call)
preloading.begin()
other.join(60)
assert not other.is_alive() and not failed, failed
"""
    assert failures([piece]) == {}


def test_names_that_are_not_there() -> None:
    """The error is that of every module, also where a part of the package cannot be imported."""
    with pytest.raises(AttributeError, match="module 'dwebsocket' has no attribute 'nope'"):
        dwebsocket.nope  # type: ignore[attr-defined]  # noqa: B018
    assert not hasattr(dwebsocket, "__wrapped__")


def test_public_names() -> None:
    """The names that `from dwebsocket import *` gives, sorted."""
    assert set(dwebsocket.__all__) == PUBLIC
    assert dwebsocket.__all__ == sorted(dwebsocket.__all__)


def test_all_is_true() -> None:
    """Every name in `__all__` exists."""
    missing = [
        f"{module.__name__}.{name}"
        for module in modules()
        for name in getattr(module, "__all__", ())
        if not hasattr(module, name)
    ]
    assert missing == []


def test_all_is_documented() -> None:
    """Every module says what it is for, and every public name what it does."""
    things = {module.__name__: module for module in modules()} | documented()
    assert len(things) > 2000
    assert [
        name for name, thing in things.items() if not (inspect.getdoc(thing) or "").strip()
    ] == []


def test_close_is_close() -> None:
    """The name of the original's base class."""
    assert dwebsocket.WebSocket.is_close is dwebsocket.WebSocket.is_closed


def test_package_is_typed() -> None:
    """Type checkers read our annotations."""
    from importlib import resources

    files = resources.files(dwebsocket)
    assert files.joinpath("py.typed").is_file()
    assert files.joinpath("_core.pyi").is_file()
