"""Groups: one call sends a message to all their members, in every process."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from django.core.signals import request_started

from dwebsocket._core import Member
from dwebsocket.conf.checks import register as _register_checks
from dwebsocket.groups import reports
from dwebsocket.groups.api import Group, group, user
from dwebsocket.groups.backends.contract import Backend
from dwebsocket.groups.history import Entry, History, Log, Recovery
from dwebsocket.groups.history.recorded import HistoryBackend
from dwebsocket.groups.presence.exchanging import PresenceBackend
from dwebsocket.groups.statistics import group_statistics as group_statistics

__all__ = [
    "Backend",
    "Entry",
    "Group",
    "History",
    "HistoryBackend",
    "Log",
    "Member",
    "PresenceBackend",
    "Recovery",
    "group",
    "user",
]


def _listen_for_sign_outs(**_: Any) -> None:
    # A process that only publishes may sign out users of others.
    request_started.disconnect(dispatch_uid="dwebsocket.users.sign_out")
    import_module("dwebsocket.users.sign_out").listen_in_all()


_register_checks()
request_started.connect(_listen_for_sign_outs, dispatch_uid="dwebsocket.users.sign_out")
reports.register()
