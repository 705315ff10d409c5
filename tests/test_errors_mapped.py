"""Errors say whose fault it is: the tree of exceptions, and how the engine's errors get into it."""

from __future__ import annotations

import builtins
import errno
import inspect
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from django.core.exceptions import ImproperlyConfigured

from dwebsocket import _core, exceptions
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

ROOT = Path(__file__).resolve().parent.parent

# Each exception and what else it is, so that code which knows nothing of us catches it rightly.
TREE: dict[type[Exception], tuple[type, ...]] = {
    WebSocketError: (Exception,),
    UsageError: (WebSocketError, RuntimeError),
    ConnectionClosed: (WebSocketError, EOFError),
    ReceiveTimeout: (WebSocketError, TimeoutError),
    InvalidMessage: (WebSocketError, ValueError),
    SendTimeout: (WebSocketError, TimeoutError),
    UnsupportedServer: (WebSocketError, ImproperlyConfigured),
    PingTimeout: (WebSocketError, TimeoutError),
    GroupUnavailable: (WebSocketError, ConnectionError),
    ConnectionFailed: (WebSocketError, ConnectionError),
    ConnectionTimeout: (ConnectionFailed, TimeoutError),
    HandshakeRefused: (ConnectionFailed,),
    ShuttingDown: (WebSocketError,),
    InternalError: (WebSocketError,),
}


def rust(path: str) -> str:
    """Read a source file without its comments."""
    return re.sub(r"//.*", "", (ROOT / "src" / path).read_text())


def variants() -> list[str]:
    """Give the names of `engine::Error`'s variants."""
    body = re.search(r"pub enum Error \{\n(.*?)\n\}", rust("engine/base/error.rs"), re.DOTALL)
    assert body is not None
    return re.findall(r"^    (\w+)", body[1], re.MULTILINE)


def arms() -> str:
    """Give the one place where they become Python exceptions."""
    found = re.search(
        r"impl From<engine::Error> for PyErr \{(.*?)\n\}", rust("binding/exceptions.rs"), re.DOTALL
    )
    assert found is not None
    return found[1]


def test_tree() -> None:
    """Every exception of the module has its place, and its bases are those of the table."""
    defined = {
        thing
        for thing in vars(exceptions).values()
        if inspect.isclass(thing) and thing.__module__ == exceptions.__name__
    }
    assert defined == set(TREE)
    for exception, bases in TREE.items():
        assert exception.__bases__ == bases


@pytest.mark.parametrize("exception", TREE)
def test_names_hide_no_builtin(exception: type[Exception]) -> None:
    """`from dwebsocket import *` must not change what `except TimeoutError` means."""
    assert not hasattr(builtins, exception.__name__)


def test_engine_has_errors() -> None:
    """Else the tests below would pass without looking at any."""
    assert {"SendTimeout", "ShuttingDown", "Io"} <= set(variants())


@pytest.mark.parametrize("variant", variants())
def test_every_variant_has_an_arm(variant: str) -> None:
    """By its own name."""
    assert re.search(rf"engine::Error::{variant}\b[^=]*=>", arms())


def test_no_arm_for_the_rest() -> None:
    """A new variant must not become an exception that was not chosen for it."""
    assert not re.search(r"^\s*_ =>", arms(), re.MULTILINE)


def test_imported_exceptions_exist() -> None:
    """A name that is not there would show only when the error happens."""
    imported = re.findall(r"import_exception!\(([\w.]+), (\w+)\)", rust("binding/exceptions.rs"))
    assert imported
    for module, name in imported:
        assert module == exceptions.__name__
        assert getattr(exceptions, name) in TREE


def test_operating_systems_refusal_is_an_os_error() -> None:
    """With its number and what was tried; the descriptor and the place are given back."""
    before = _core.open_connections()
    permit = _core.Permit.claim(None)
    assert permit is not None
    no_socket = os.open(os.devnull, os.O_RDONLY)
    with pytest.raises(OSError, match="cannot take over the client's connection") as caught:
        adopt(no_socket, permit)
    assert caught.value.errno == errno.ENOTSOCK
    # The view's hold; the connection's has gone with it.
    permit.release()
    assert _core.open_connections() == before
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(no_socket)


def test_slot_serves_once() -> None:
    """A place is for one connection."""
    permit = _core.Permit.claim(None)
    assert permit is not None
    permit.release()
    descriptor = os.open(os.devnull, os.O_RDONLY)
    with pytest.raises(ValueError, match="released already"):
        adopt(descriptor, permit)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)


def test_process_that_ends_takes_no_connection() -> None:
    """The error says that the process is ending."""
    code = (
        "import os, socket\n"
        "from dwebsocket import _core\n"
        "from dwebsocket.exceptions import ShuttingDown\n"
        "from test_errors_mapped import adopt\n"
        "ours, theirs = socket.socketpair()\n"
        "adopt(os.dup(ours.fileno()), _core.Permit.claim(None))\n"
        "theirs.close()\n"
        "_core.shut_down(1001, '', 5)\n"
        "ours, theirs = socket.socketpair()\n"
        "try:\n"
        "    adopt(os.dup(ours.fileno()), _core.Permit.claim(None))\n"
        "except ShuttingDown as error:\n"
        "    print(error)\n"
        "ours.close()\n"
        "print(theirs.recv(12))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=Path(__file__).parent,
    )
    assert (done.stdout, done.stderr) == (
        "the process is ending and takes no new connection\nb'HTTP/1.1 503'\n",
        "",
    )


def adopt(descriptor: int, permit: _core.Permit) -> _core.Connection:
    """Hand a descriptor to the engine."""
    return _core.adopt(
        descriptor,
        b"",
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
        permit,
        _core.Settings(
            max_message_bytes=100,
            max_frame_bytes=None,
            max_fragments=9,
            receive_buffer_bytes=100,
            messages_per_second=None,
            bytes_per_second=None,
            rate_timeout=None,
            ping_interval=None,
            ping_timeout=None,
            send_buffer_bytes=100,
            send_timeout=None,
            message_timeout=None,
            close_timeout=1,
        ),
    )
