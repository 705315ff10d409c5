"""
Memberships in groups that processes of a machine share, on their way from one to another.

The heir's process begins first: a *stand-in* keeps what is published, and the heir says how far the
messages of each process have come there. When the giver has got as far, it ends the membership, and
says which messages the connection has got. The heir exchanges the stand-in for the connection. It
drops those messages, whenever they come, and sends all others: none is lost, and none comes twice.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from dwebsocket import _core
from dwebsocket.compat import unpatched
from dwebsocket.compat.system import monotonic
from dwebsocket.groups import backends
from dwebsocket.groups.backends.local import Backend
from dwebsocket.groups.members import key_of
from dwebsocket.handover import offers

if TYPE_CHECKING:
    from collections.abc import Callable

    from dwebsocket.groups.api import Group
    from dwebsocket.websocket import WebSocket

    #: For each process its last message.
    Begun = list[tuple[int, int]]
    #: Alias, name, and the messages that the member has got.
    Cuts = list[tuple[str, str, Begun]]

# Seconds that messages may take from one process to another, and through a group's queue.
_ON_THE_WAY_S = 5.0
_PAUSE_S = 0.001


def _await(is_so: Callable[[], bool]) -> bool:
    """Waits until it is so; false when that takes too long. Almost always it is so already."""
    deadline = monotonic() + _ON_THE_WAY_S
    while not is_so():
        if monotonic() >= deadline:
            return False
        unpatched.pause(_PAUSE_S)
    return True


def _as_pairs(numbers: Begun) -> Begun:
    """Returns numbers that may have come as JSON."""
    return [(process, number) for process, number in numbers]


def _local(alias: str) -> Backend:
    found = backends.backend(alias)
    assert isinstance(found, Backend)
    return found


def cut(websocket: WebSocket, begun: dict[str, Begun]) -> Cuts | None:
    """
    Ends the memberships of a connection that is about to be given away.

    Args:
        begun: For each alias, how far messages have come in the heir's process.

    Returns:
        The messages that it has got; None when others have not come here in time.
    """
    for alias, numbers in begun.items():
        has_taken = functools.partial(_local(alias).node.has_taken, _as_pairs(numbers))
        if not _await(has_taken):
            return None
    connection = websocket._connection
    assert connection is not None
    cuts: Cuts = []
    for alias, name in offers.memberships(websocket):
        if alias not in begun:
            continue
        groups = _local(alias).groups
        found = _core.cut_membership(groups, name, connection)
        if found is None:
            continue
        got, until = found
        if not _await(functools.partial(_core.has_handed_out, groups, name, until)):
            return None
        cuts.append((alias, name, got))
    return cuts


class Crossing:
    """The memberships of one connection that is expected here."""

    def __init__(self, groups: list[Group], websocket: WebSocket) -> None:
        """
        Begins to keep what is published.

        Raises:
            GroupUnavailable: This process cannot get messages of a group.
        """
        self._stand_ins: dict[tuple[str, str], _core.StandIn] = {}
        key = key_of(websocket.id)
        for each in groups:
            backend = _local(each.using)
            backend.hold(each.name)
            try:
                stand_in = _core.StandIn(backend.groups, each.name, key)
            finally:
                backend.release(each.name)
            self._stand_ins[each.using, each.name] = stand_in
        # After that: what is not among these is kept.
        self.begun = {alias: _local(alias).node.begun() for alias, _ in self._stand_ins}

    def enter(self, connection: _core.Connection, cuts: Cuts) -> bytes | None:
        """
        Makes the connection, which sends nothing yet, a member in place of the stand-ins.

        Returns:
            What it has to send first; None when it cannot be told all.
        """
        frames = []
        for alias, name, numbers in cuts:
            stand_in = self._stand_ins.pop((alias, name), None)
            if stand_in is None:
                continue
            got = _as_pairs(numbers)
            until = stand_in.exchange(connection, got)
            if until is None:
                # Evicted meanwhile.
                continue
            groups = _local(alias).groups
            if not _await(functools.partial(_core.has_handed_out, groups, name, until)):
                return None
            kept = stand_in.take_kept(connection, got)
            if kept is None or kept[1] is not None:
                return None
            frames.append(kept[0])
        self.leave()
        return b"".join(frames)

    def leave(self) -> None:
        """Ends the memberships of all stand-ins that are left."""
        while self._stand_ins:
            self._stand_ins.popitem()[1].leave()
