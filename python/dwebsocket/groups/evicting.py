"""Evictions: members leave a group because somebody takes them out of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dwebsocket.groups.api import Group
from dwebsocket.groups.members import member_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from dwebsocket.api.base import Base
    from dwebsocket.groups.backend import Backend

#: Gives the open connections of a user in this process, by the user's name among those of all
#: realms. :mod:`dwebsocket.registry`, which knows them, sets it.
connections_of: Callable[[str], Iterable[Base]] = lambda _: ()  # noqa: E731


def leave(backend: Backend, name: str, what: str, whom: str) -> None:
    """
    Takes the connections of a user out of a group. Others are the engine's business.

    Members of rooms have left by themselves, and were told.
    """
    if what != "user":
        return
    for websocket in connections_of(whom):
        member = member_of(websocket)
        if member is not None and name in backend.groups.names_of(member):
            Group(name, backend.alias).discard(websocket)
