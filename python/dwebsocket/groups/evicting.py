"""Evictions: members leave a group because somebody takes them out of it."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from dwebsocket.groups.api import Group
from dwebsocket.groups.members import member_of

if TYPE_CHECKING:
    from dwebsocket.groups.backends.contract import Backend


def leave(backend: Backend, name: str, what: str, whom: str) -> None:
    """
    Takes the connections of a user out of a group. Others are the engine's business.

    Members of rooms have left by themselves, and were told.
    """
    if what != "user":
        return
    # It knows groups, not the other way round, and a process that serves has imported it.
    for websocket in import_module("dwebsocket.users.registry").connections_of(whom):
        member = member_of(websocket)
        if name in backend.groups.names_of(member):
            Group(name, backend.alias).discard(websocket)
