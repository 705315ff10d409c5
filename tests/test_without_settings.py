"""Imports and decorators work before Django is configured, and without optional packages."""

from __future__ import annotations

from support.fresh import failures

MODULES = [
    "dwebsocket",
    "dwebsocket.client",
    "dwebsocket.decorators",
    "dwebsocket.middleware",
    "dwebsocket.websocket",
    "dwebsocket.factory",
    "dwebsocket.conf",
    "dwebsocket.conf.checks",
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
importlib.import_module("{module}")
from django.conf import settings
assert not settings.configured
assert threading.active_count() == 1, threading.enumerate()
assert len(os.listdir("/proc/self/fd")) == before
assert len(os.listdir("/proc/self/task")) == 1
for absent in "redis gunicorn gevent eventlet uvicorn pytest dwebsocket.testing".split():
    assert absent not in sys.modules, absent
"""

DECORATE = """
from dwebsocket import accept_websocket

@accept_websocket(text_type=str, subprotocols=["chat"])
def view(request): ...

assert view.accept_websocket
"""

FORK = """
import contextlib, importlib, os, pkgutil, sys, warnings
os.environ.pop("DJANGO_SETTINGS_MODULE", None)
import dwebsocket
for module in pkgutil.walk_packages(dwebsocket.__path__, "dwebsocket.", onerror=lambda name: None):
    # Some need settings, or a package.
    with contextlib.suppress(Exception):
        importlib.import_module(module.name)
failed = []
warnings.simplefilter("ignore")
sys.unraisablehook = lambda unraisable: failed.append(unraisable.exc_value)
child = os.fork()
if not child:
    os._exit(bool(failed))
assert os.waitpid(child, 0)[1] == 0
"""


def test_import() -> None:
    """No settings, no thread, no descriptor, no server package: nothing at import."""
    assert failures([PROBE.format(module=module) for module in MODULES]) == {}


def test_decorating() -> None:
    """Options are checked without looking at the settings."""
    assert failures([DECORATE]) == {}


def test_fork() -> None:
    """A process that has imported what there is, and forks before Django is configured."""
    assert failures([FORK]) == {}
