"""
Memberships in groups whose messages a server carries, on their way from one process to another.

Such a server brings what is published in a group to all processes in one order. So a *marker*, a
name that is published there once, divides the messages in the same way everywhere. The heir's
process chooses it, and the giver's publishes it. The membership ends at the marker in the giver's
process, and in the heir's a deputy begins there to keep what is published. See
``src/engine/groups/markers.rs``.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, cast

from dwebsocket import _core
from dwebsocket.exceptions import GroupUnavailable
from dwebsocket.groups import backends

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from dwebsocket.groups.backends import postgres, redis
    from dwebsocket.groups.backends.contract import Backend, Member
    from dwebsocket.runners.handler import Handled

    #: A backend with a server.
    Carrier = postgres.Backend | redis.Backend
    #: The alias and the name of a group; the room whose group it is, None for another one.
    Where = tuple[str, str, str | None]
    #: The same, and the marker in hexadecimal digits.
    Mark = tuple[str, str, str | None, str]
    #: What ``_core.depart`` returns.
    Departed = tuple[list[tuple[int, int]], int, tuple[int, int, bool] | None]

_MARKER_BYTES = 16
# By the modules of their classes: subclasses of a project's own may do anything.
_WITH_SERVER = ("dwebsocket.groups.backends.redis", "dwebsocket.groups.backends.postgres.backend")


def has_markers(backend: Backend) -> bool:
    """Whether memberships move at markers: a server carries the messages."""
    return type(backend).__module__ in _WITH_SERVER


def _carrier(alias: str) -> Carrier:
    return cast("Carrier", backends.backend(alias))


class _Subscription:
    """The way on which the messages of a group come to this process, as it is now."""

    def __init__(self, carrier: Carrier, name: str) -> None:
        self._carrier, self._name = carrier, name
        self._number = carrier.subscription(name)

    @property
    def is_whole(self) -> bool:
        """Whether no message was lost since then, as far as is known."""
        return self._number != 0 and self._carrier.subscription(self._name) == self._number


class Beginning:
    """A membership that begins here at a marker, in a group that is held."""

    def __init__(
        self, where: Where, key: bytes, deputy: _core.Deputy, before: _core.Deputy
    ) -> None:
        """
        Awaits a marker.

        Args:
            where: The group.
            key: That of the connection.
            deputy: Becomes the member at the marker, and keeps what comes after it.
            before: The member until then.
        """
        alias, name, room = where
        carrier, marker = _carrier(alias), secrets.token_bytes(_MARKER_BYTES)
        self.mark: Mark = (alias, name, room, marker.hex())
        self._deputy, self._before = deputy, before
        deputy.begin_at_marker(carrier.groups, name, before, key, marker)
        self._subscription = _Subscription(carrier, name)

    def has_come(self) -> bool:
        """Whether the marker has come."""
        return self._deputy.has_begun

    @property
    def is_whole(self) -> bool:
        """Whether no message was lost on the way to this process meanwhile."""
        return self._subscription.is_whole


class _End:
    """A membership that ends here at a marker."""

    def __init__(self, mark: Mark, member: Member) -> None:
        self.alias, self.name, self.room, marker = mark
        self.marker = bytes.fromhex(marker)
        carrier = _carrier(self.alias)
        self.subscription = _Subscription(carrier, self.name)
        self.cut = _core.MarkedCut(carrier.groups, self.name, member, self.marker)


class Ends:
    """The memberships of one connection that end here at markers."""

    def __init__(self, handler: Handled, marks: Iterable[Mark]) -> None:
        """Awaits the markers, for which :func:`publish` is to be called."""
        self._connection = handler.websocket._engine
        members: dict[str | None, Member] = {None: self._connection}
        members.update((room, each[-1]) for room, each in handler._seats_to_move().items())
        # A room that is missing here has ended meanwhile.
        self.all = [_End(mark, members[mark[2]]) for mark in marks if mark[2] in members]
        #: Whether a marker cannot come.
        self.has_failed = not all(each.subscription.is_whole for each in self.all)

    @property
    def are_over(self) -> bool:
        """Whether no marker is awaited any more."""
        if self.has_failed or self._connection.end() is not None:
            return True
        return all(each.cut.is_done for each in self.all)

    @property
    def are_sure(self) -> bool:
        """Whether all markers have come, and no message before them may have been lost."""
        is_sure = all(each.cut.is_done and each.subscription.is_whole for each in self.all)
        return is_sure and not self.has_failed

    def of_groups(self) -> list[tuple[str, str, int]]:
        """Returns alias and name of each group, and which entry is not for the connection."""
        found = (
            (each.alias, each.name, each.cut.departed) for each in self.all if each.room is None
        )
        # Those without an end have left the group before the marker.
        return [(alias, name, left[1]) for alias, name, left in found if left is not None]

    def of_rooms(self) -> dict[str, Departed | None]:
        """Returns the end in each room; None for one that was left before the marker."""
        return {each.room: each.cut.departed for each in self.all if each.room is not None}


def publish(leaving: Sequence[Ends]) -> None:
    """Publishes the markers of several connections, those of one group together."""
    markers: dict[str, dict[str, list[bytes]]] = {}
    for end in (end for ends in leaving if not ends.has_failed for end in ends.all):
        markers.setdefault(end.alias, {}).setdefault(end.name, []).append(end.marker)
    for alias, of_groups in markers.items():
        carrier = _carrier(alias)
        encode = carrier.groups.encode_markers
        try:
            carrier.publish_all([(name, encode(name, each)) for name, each in of_groups.items()])
        except GroupUnavailable:
            for ends in leaving:
                ends.has_failed |= any(end.alias == alias for end in ends.all)
