"""Imports and decorators work before Django is configured, and without optional packages."""

from __future__ import annotations

import subprocess
import sys

import pytest

MODULES = [
    "dwebsocket",
    "dwebsocket.client",
    "dwebsocket.decorators",
    "dwebsocket.middleware",
    "dwebsocket.websocket",
    "dwebsocket.factory",
    "dwebsocket.conf",
    "dwebsocket.checks",
    "dwebsocket.exceptions",
    "dwebsocket.backends.default.factory",
    "dwebsocket.backends.default.protocols",
    "dwebsocket.backends.default.websocket",
    "dwebsocket.backends.uwsgi.factory",
    "dwebsocket.backends.uwsgi.websocket",
]

PROBE = """
import importlib, os, sys, threading
os.environ.pop("DJANGO_SETTINGS_MODULE", None)
before = len(os.listdir("/proc/self/fd"))
importlib.import_module(sys.argv[1])
from django.conf import settings
assert not settings.configured
assert threading.active_count() == 1, threading.enumerate()
assert len(os.listdir("/proc/self/fd")) == before
assert len(os.listdir("/proc/self/task")) == 1
absent = {"redis", "gunicorn", "gevent", "eventlet", "uvicorn", "pytest", "dwebsocket.testing"}
assert not absent & set(sys.modules)
"""

DECORATE = """
from dwebsocket import accept_websocket

@accept_websocket(text_type=str, subprotocols=["chat"])
def view(request): ...

assert view.accept_websocket
"""


@pytest.mark.parametrize("module", MODULES)
def test_import(module: str) -> None:
    """No settings, no thread, no descriptor, no server package: nothing at import."""
    run(PROBE, module)


def test_decorating() -> None:
    """Options are checked without looking at the settings."""
    run(DECORATE)


def run(code: str, *arguments: str) -> None:
    """Run in a fresh interpreter, every warning an error."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
