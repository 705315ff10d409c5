"""The rooms that a connection has joined, and their objects."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from weakref import getweakrefcount, ref

from dwebsocket.conf.group_settings import DEFAULT
from dwebsocket.rooms.room import is_plain, pattern_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from dwebsocket import _core
    from dwebsocket.rooms.room import Room
    from dwebsocket.websocket import WebSocket

# So many objects stay whatever they have.
_MOST = 16
# The attributes that an object gets again when it is made anew.
_GIVEN = frozenset({"websocket", "request", "name", "_seat", "_backend", "_kwargs"})


class Joined:
    """
    The rooms that a connection has joined, by their names.

    A page may be in a thousand, and the engine knows the name of each one. So an object that has
    nothing of its own, and to which nothing refers, is made anew when it is needed. One thread at a
    time uses it, but where a method says something else.
    """

    def __init__(
        self, websocket: WebSocket, request: Any, make: Callable[[str], Room | None]
    ) -> None:
        """Begins without rooms; ``make`` makes the object of one."""
        self._websocket = websocket
        self._request = request
        self._make = make
        #: The connection's seats, once it has had one: in each room that it has joined.
        self.seats: _core.Seats | None = None
        # The objects that were used last, the oldest one first, and those that stay.
        self._recent: dict[str, Room] = {}
        self._kept: dict[str, Room] = {}

    def __len__(self) -> int:
        """Returns how many rooms there are."""
        return 0 if self.seats is None else len(self.seats)

    def names(self) -> list[str]:
        """Returns the names of all rooms. Any thread may call it."""
        return [] if self.seats is None else sorted(self.seats.rooms())

    def __iter__(self) -> Iterator[Room]:
        """Yields each room, by an object that may be only the caller's. Any thread may do so."""
        for name in self.names():
            if (room := self.peek(name)) is not None:
                yield room

    def ended(self) -> list[str]:
        """Returns the names of the rooms whose seats have ended by themselves."""
        return [] if self.seats is None else sorted(self.seats.ended())

    def aliases(self) -> set[str]:
        """Returns the aliases of the rooms' backends. Any thread may call it."""
        objects = [*list(self._recent.values()), *list(self._kept.values())]
        found = {room.group.using for room in objects}
        return found | {DEFAULT} if len(objects) < len(self) else found

    def known(self, name: str) -> Room | None:
        """Returns a room's object, if there is one now. Any thread may call it."""
        room = self._recent.get(name)
        return self._kept.get(name) if room is None else room

    def peek(self, name: str) -> Room | None:
        """Returns a room's object, or one that only the caller has. Any thread may call it."""
        room = self.known(name)
        if room is not None or self.seats is None:
            return room
        try:
            seat = self.seats.find(name)
        except UnicodeEncodeError:
            # Half a surrogate pair, which a client may send and no room has.
            return None
        if seat is not None and (room := self._make(name)) is not None:
            room._seat = seat
        return room

    def get(self, name: str) -> Room | None:
        """Returns a room's object; None for a room that is not joined."""
        room = self.known(name)
        if room is None and (room := self.peek(name)) is not None:
            self.add(room)
        return room

    def each(self, names: list[str]) -> Iterator[Room]:
        """Yields the objects of those rooms that are joined still, as :meth:`get` does."""
        return (room for name in names if (room := self.get(name)) is not None)

    def add(self, room: Room) -> None:
        """Adds a room that has a seat."""
        self._recent[room.name] = room
        while len(self._recent) > _MOST:
            self._put_aside(next(iter(self._recent)))

    def remove(self, room: Room) -> None:
        """Forgets a room's object, before its seat is left."""
        self._recent.pop(room.name, None)
        self._kept.pop(room.name, None)

    def _put_aside(self, name: str) -> None:
        """Lets go of an object, unless anything would be lost."""
        room = self._recent[name]
        if getweakrefcount(room) or not self._can_be_made_anew(room, name):
            self._kept[name] = room
            del self._recent[name]
            return
        its = ref(room)
        del room, self._recent[name]
        if (left := its()) is not None:
            # The project refers to it.
            self._kept[name] = left

    def _can_be_made_anew(self, room: Room, name: str) -> bool:
        if not is_plain(type(room)) or not vars(room).keys() <= _GIVEN:
            return False
        given = (room.websocket, room.request, room.name)
        # The project may have replaced the request, or changed the arguments.
        return given == (self._websocket, self._request, name) and (
            room._kwargs is None or room._kwargs == pattern_of(type(room)).match(name)
        )
