"""
Memberships in groups that processes share, on their way from one to another.

The heir's process begins first: a *deputy* keeps what is published. The giver's process ends the
membership, and in the heir's the connection succeeds the deputy. No message is lost, and none comes
twice:

- Where the processes of a machine tell each other, their messages are numbered. The heir says how
  far those of each process have come there. When the giver has got as far, it ends the membership,
  and says which messages the connection has got. The heir drops these, whenever they come.
- Where a server carries the messages, a marker among them says where the membership ends in one
  process, and begins in the other: see :mod:`.markers`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dwebsocket import _core
from dwebsocket.api.waiting.steps import run
from dwebsocket.compat.system import monotonic
from dwebsocket.groups import backends, holding
from dwebsocket.groups.members import key_of
from dwebsocket.handover import markers, offers
from dwebsocket.handover.places import await_handed_out, begun_of, have_come, wait_until

if TYPE_CHECKING:
    from typing import Any

    from dwebsocket.groups.api import Group
    from dwebsocket.runners.handler import Handled
    from dwebsocket.websocket import WebSocket

    #: For each process its last message.
    Begun = list[tuple[int, int]]
    #: Alias, name, and the messages that the member has got.
    Cuts = list[tuple[str, str, Begun]]

#: Seconds that messages may take from one process to another, and through a group's queue.
ON_THE_WAY_S = 5.0


class Departure:
    """The memberships of one connection that is about to be given away."""

    def __init__(self, handler: Handled, expected: dict[str, Any]) -> None:
        """
        Awaits the markers of its groups and rooms, which are to be published.

        Args:
            handler: The connection's handler.
            expected: What the heir's process says of them, as :attr:`Crossing.expected`.
        """
        self._websocket = handler.websocket
        self._begun: dict[str, Begun] = expected["begun"]
        self.ends = markers.Ends(handler, expected["marks"])

    def cut(self, deadline: float) -> Cuts | None:
        """
        Ends the memberships. Those in rooms have ended then where there are markers.

        Args:
            deadline: The moment until which markers and messages are awaited.

        Returns:
            The messages that it has got; None when that is not sure in time.
        """
        if not wait_until(lambda: self.ends.are_over, deadline - monotonic()):
            return None
        if not self.ends.are_sure:
            return None
        # Their deputies keep nothing that the connection has got.
        marked: Cuts = [(alias, name, []) for alias, name, _ in self.ends.of_groups()]
        for alias, name, until in self.ends.of_groups():
            if not await_handed_out(backends.backend(alias).groups, name, until):
                return None
        if not have_come(self._begun, deadline):
            return None
        cuts: Cuts = []
        for alias, name, backend in offers.memberships(self._websocket):
            if alias not in self._begun:
                continue
            groups = backend.groups
            if (left := _core.depart(groups, name, self._websocket._engine)) is None:
                continue
            got, until, _ = left
            if not await_handed_out(groups, name, until):
                return None
            cuts.append((alias, name, got))
        return cuts + marked


class Crossing:
    """The memberships of one connection that is expected here."""

    def __init__(self, groups: list[Group], websocket: WebSocket) -> None:
        """
        Begins to keep what is published.

        Raises:
            GroupUnavailable: This process cannot get messages of a group.
        """
        self._deputies: dict[tuple[str, str], _core.Deputy] = {}
        self._beginnings: dict[tuple[str, str], markers.Beginning] = {}
        self._key = key = key_of(websocket.id)
        held = run(holding.hold(groups))
        try:
            for each in groups:
                deputy = self._deputies[each.using, each.name] = _core.Deputy()
                backend = backends.backend(each.using)
                if not markers.has_markers(backend):
                    backend.join(each.name, deputy, key)
                    continue
                before = _core.Deputy()
                backend.join(each.name, before, key)
                begins = markers.Beginning((each.using, each.name, None), key, deputy, before)
                self._beginnings[each.using, each.name] = begins
        finally:
            holding.release(held)
        #: Facts for the giver, as JSON can represent them.
        self.expected = {
            # After that: what is not among these is kept.
            "begun": begun_of({alias for alias, _ in self._deputies}),
            "marks": [each.mark for each in self._beginnings.values()],
        }

    def enter(self, connection: _core.Connection, cuts: Cuts) -> bytes | None:
        """
        Makes the connection, which sends nothing yet, a member in place of the deputies.

        Returns:
            What it has to send first; None when it cannot be told all.
        """
        frames = []
        for alias, name, numbers in cuts:
            if (deputy := self._deputies.get((alias, name))) is None:
                continue
            begins = self._beginnings.get((alias, name))
            if begins is not None and not wait_until(begins.has_come):
                return None
            # They may have come as JSON.
            got = [(process, number) for process, number in numbers]
            groups = backends.backend(alias).groups
            until = deputy.succeed(groups, name, connection, self._key, got, None)
            if not isinstance(until, int):
                # Evicted meanwhile.
                continue
            if not await_handed_out(groups, name, until):
                return None
            if begins is not None and not begins.is_whole:
                return None
            if (kept := deputy.take_kept(connection, got)) is None:
                return None
            frames.append(kept)
        self.leave()
        return b"".join(frames)

    def leave(self) -> None:
        """Ends the memberships of all deputies that are left."""
        self._beginnings.clear()
        while self._deputies:
            self._deputies.popitem()[1].leave()
