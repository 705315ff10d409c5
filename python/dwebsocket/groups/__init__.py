"""Groups: one call sends a message to all their members, in every process."""

from __future__ import annotations

from dwebsocket._core import Member
from dwebsocket.groups import checks, reports
from dwebsocket.groups.api import Group, group, user
from dwebsocket.groups.backend import Backend
from dwebsocket.groups.exchanging import PresenceBackend
from dwebsocket.groups.history import Entry, History, Log, Recovery
from dwebsocket.groups.recorded import HistoryBackend
from dwebsocket.groups.statistics import group_statistics

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
    "group_statistics",
    "user",
]

checks.register()
reports.register()
