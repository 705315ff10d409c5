"""
The test project with everything for which the package has threads, where threads are green.

What they call that is neither the package's nor the standard library's is noted in the file that
the setting STRAYS names, a line for each function.
"""

from __future__ import annotations

import os
import sys
import sysconfig
from pathlib import Path

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.urls import path

import dwebsocket
from dwebsocket import accept_websocket, group, statistics, user
from dwebsocket.compat import unpatched
from dwebsocket.groups import backends
from dwebsocket.groups.backends.contract import Backend
from project import consumer_urls, group_views, urls

_original = unpatched.original
_noted: set[str] = set()
_standard = sysconfig.get_path("stdlib")
_packages = sysconfig.get_path("purelib")
# Which parts of the library are patched, and what a server that ends has been told, is asked there.
_known = (
    *("<", __file__, str(Path(dwebsocket.__file__).parent)),
    *(os.path.join(_packages, name) for name in ("gevent/monkey", "gunicorn/config.py")),
)
# Handlers, filters and formatters of logs are a project's.
_logging = os.path.join(_standard, "logging")


def _note(frame, event, _):
    file = frame.f_code.co_filename
    if event != "call" or file.startswith(_known):
        return
    is_standard = file.startswith(_standard) and not file.startswith((_packages, _logging))
    called = f"{file} {frame.f_code.co_name}\n"
    if not is_standard and called not in _noted:
        _noted.add(called)
        with open(settings.STRAYS, "a") as noted:
            noted.write(called)


def _start_watched(target, arguments):
    def run():
        sys.setprofile(_note)
        target(*arguments)

    return _original("_thread", "start_new_thread")(run, ())


def _watching(module, name):
    is_start = (module, name) == ("_thread", "start_new_thread")
    return _start_watched if is_start else _original(module, name)


unpatched.original = _watching


@accept_websocket
def present(request: HttpRequest) -> None:
    """Join groups of all kinds, and tell what comes."""
    request.websocket.join("present", presence=True)
    request.websocket.join("kept")
    for message in request.websocket.messages():
        group("kept").send(message)


def everything(request: HttpRequest) -> HttpResponse:
    """Have each thread do something."""
    backend = backends.backend("default")
    backend.catch_up_soon()
    # That of the backends that subscribe to each group.
    Backend.subscribe_soon(backend, "kept")
    user(request.user).send("for you")
    group("present").members()
    return HttpResponse(str(statistics("site")["missing"]))


urlpatterns = [
    path("present/", present),
    path("everything/", everything),
    *group_views.urlpatterns,
    *consumer_urls.urlpatterns,
    *urls.urlpatterns,
]
