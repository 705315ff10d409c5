"""
The modules that a process imports before it serves.

A command of a project such as ``migrate`` imports its views, and needs little of this package. A
handshake needs most of it, and should import nothing: the process may have no descriptor left.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any

from django.apps import apps
from django.core.signals import request_started

from dwebsocket.compat.django import is_in_command

_MODULES = (
    *("client", "decorators", "groups.backends.local", "handler"),
    *("handover.arriving", "handover.leaving"),
    *("handshake.fallback", "handshake.inline", "handshake.upgrade"),
    *("operations.doctor.site_report", "operations.survey"),
    *("runners.asgi_apps", "runners.shutdown", "users.announcements", "users.recheck"),
    *("users.sign_out", "websocket"),
)
_UID = "dwebsocket.handshake.preloading"
_is_done = False


def begin() -> None:
    """
    Imports all that serving needs: now, or with the first request where a command runs.

    To be called at the end of the modules with which a project begins.
    """
    if is_in_command():
        begin_with_a_request()
    else:
        _import_all()


def begin_with_a_request() -> None:
    """Begins as :func:`begin`, but with the first request in any case."""
    if not _is_done:
        request_started.connect(_import_all, dispatch_uid=_UID)


def _import_all(**_: Any) -> None:
    global _is_done
    if _is_done:
        return
    # Set first: the modules call `begin`. If one cannot be imported, the next request tries again.
    _is_done = True
    try:
        for name in _MODULES:
            import_module(f"dwebsocket.{name}")
        if "uwsgi" in sys.modules:
            import_module("ctypes")
        if apps.apps_ready and apps.is_installed("channels"):
            # Its URLs may be loaded when other code has begun asgiref's own thread.
            import_module("dwebsocket.runners.application_threads").begin()
        # Other processes of the site may end before the first request comes.
        import_module("dwebsocket.handover.arriving").begin()
    except BaseException:
        _is_done = False
        raise
    request_started.disconnect(dispatch_uid=_UID)
