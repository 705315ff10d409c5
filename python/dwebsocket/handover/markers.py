"""
Memberships in groups whose messages a server carries, on their way from one process to another.

Such a server brings what is published in a group to all processes in one order. So a *marker*, a
name that is published there once, divides the messages in the same way everywhere. The heir's
process chooses it, and the giver's publishes it. The membership ends at the marker in the giver's
process, and in the heir's a stand-in begins there to keep what is published. See
``src/engine/groups/markers.rs``.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Protocol, cast

from dwebsocket import _core
from dwebsocket.exceptions import GroupUnavailable
from dwebsocket.groups import backends

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from dwebsocket.websocket import WebSocket

    #: Alias, name, and the marker in hexadecimal digits.
    Mark = tuple[str, str, str]

_MARKER_BYTES = 16


class Carrier(Protocol):
    """A backend with a server, as far as it is needed here."""

    @property
    def groups(self) -> _core.Groups:
        """The groups of this process."""

    def subscription(self, name: str) -> int:
        """Returns the number of the connection that brings a group's messages; 0 without one."""

    def publish_all(self, envelopes: list[tuple[str, bytes]]) -> None:
        """Publishes envelopes to all processes. Raises ``GroupUnavailable``."""


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

    def __init__(self, alias: str, name: str, key: bytes) -> None:
        """Awaits a marker for the member with this key."""
        carrier, marker = _carrier(alias), secrets.token_bytes(_MARKER_BYTES)
        self.mark: Mark = (alias, name, marker.hex())
        #: Keeps what comes after the marker.
        self.stand_in = _core.StandIn(carrier.groups, name, key, marker)
        self._subscription = _Subscription(carrier, name)

    @property
    def is_whole(self) -> bool:
        """Whether no message was lost on the way to this process meanwhile."""
        return self._subscription.is_whole


class _End:
    """A membership that ends here at a marker."""

    def __init__(self, mark: Mark, connection: _core.Connection) -> None:
        self.alias, self.name, marker = mark
        self.marker = bytes.fromhex(marker)
        carrier = _carrier(self.alias)
        self.subscription = _Subscription(carrier, self.name)
        self.cut = _core.MarkedCut(carrier.groups, self.name, connection, self.marker)


class Ends:
    """The memberships of one connection that end here at markers."""

    def __init__(self, websocket: WebSocket, marks: Iterable[Mark]) -> None:
        """Awaits the markers, for which :func:`publish` is to be called."""
        connection = websocket._connection
        assert connection is not None
        self._connection = connection
        self.all = [_End(mark, connection) for mark in marks]
        #: Whether a marker cannot come.
        self.has_failed = not all(each.subscription.is_whole for each in self.all)

    @property
    def are_over(self) -> bool:
        """Whether no marker is awaited any more."""
        if self.has_failed or self._connection.end() is not None:
            return True
        return all(each.cut.is_done for each in self.all)

    def found(self) -> list[tuple[str, str, int]] | None:
        """
        Returns alias and name of each group, and which entry is not for the connection any more.

        None when a marker has not come, or a message before it may have been lost.
        """
        is_sure = all(each.cut.is_done and each.subscription.is_whole for each in self.all)
        if self.has_failed or not is_sure:
            return None
        found = ((each.alias, each.name, each.cut.until) for each in self.all)
        # Those without an end have left the group before the marker.
        return [(alias, name, until) for alias, name, until in found if until is not None]


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
