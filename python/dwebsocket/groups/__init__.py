"""Groups: one call sends a message to all their members, in every process."""

from __future__ import annotations

from dwebsocket.groups import checks
from dwebsocket.groups.api import Group, group, user
from dwebsocket.groups.backend import Backend

__all__ = ["Backend", "Group", "group", "user"]

checks.register()
