"""The rooms of a connection that moves to another process: see :mod:`dwebsocket.handover`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from dwebsocket.conf.group_settings import DEFAULT, PresenceLimits
from dwebsocket.groups import backends, seats
from dwebsocket.groups.api import Group
from dwebsocket.rooms import wire
from dwebsocket.rooms.connection import has_history
from dwebsocket.rooms.room import class_of, is_written
from dwebsocket.runners.moving import is_version
from dwebsocket.telemetry import clock

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dwebsocket import _core
    from dwebsocket.rooms.connection import Rooms
    from dwebsocket.rooms.room import Room
    from dwebsocket.runners.moving import MovingSeat

    #: The seats, their number, and each one by its room's name; None for one that has ended.
    TakenSeats = tuple[_core.Seats, int, dict[str, _core.Seat | None]]


def seats_of(rooms: Rooms) -> dict[str, MovingSeat]:
    """
    Returns the seats of a connection, by the names of its rooms. Any thread may call it.

    While a room is joined or left, it may be there or not.
    """
    found = {}
    for room in rooms._joined:
        seat, group = room._seat, room.group
        if seat is not None and not seat.is_over:
            found[room.name] = (group.using, group.name, has_history(room, group), seat)
    return found


def pack(rooms: Rooms | None) -> dict[str, Any]:
    """Returns what a connection keeps of its rooms, as JSON can represent it but for states."""
    if rooms is None:
        return {"rooms": [], "waiting": [], "checked": 0.0}
    joined = [_packed(room) for room in rooms._joined]
    waiting = [{name: getattr(each, name) for name in each.__slots__} for each in rooms._waiting]
    return {"rooms": joined, "waiting": waiting, "checked": clock.now() - rooms._checked_at}


def _packed(room: Room) -> dict[str, Any]:
    group = room.group
    return {
        "name": room.name,
        "using": group.using,
        "group": group.name,
        "has_history": has_history(room, group),
        "presence": room.presence,
        "version": repr(room.version),
        "state": room._state or {},
        "info": json.loads(room._said or "null"),
        # Projects may say what only this encoder writes.
        "server_info": json.loads(wire.text(room._server_info)),
        "since": room._since,
    }


def obstacle(classes: Sequence[type[Room]], packed: dict[str, Any]) -> str | None:
    """Returns the reason why these classes cannot go on with rooms of another process."""
    for each in packed["rooms"]:
        name = each["name"]
        if (cls := class_of(classes, name)) is None:
            return f"no class has the room {name!r} now"
        own, theirs = cls.version, each["version"]
        if not is_version(own, theirs):
            return f"the version of {cls.__qualname__} is {own!r} now, not {theirs}"
        keeps = backends.backend(each["using"]).settings.kept(each["group"]) is not None
        if (cls.history is not False and keeps) != each["has_history"]:
            return f"the history of {cls.__qualname__} is not the same now"
        if cls.presence != each["presence"]:
            return f"the presence of {cls.__qualname__} is not the same now"
    return None


def unpack(rooms: Rooms, packed: dict[str, Any], taken: TakenSeats) -> None:
    """Has a connection, which has no rooms so far, go on with those of another process."""
    seats.forget(rooms._number)
    rooms._joined.seats, rooms._number, by_name = taken
    websocket = rooms._websocket
    for each in packed["rooms"]:
        name = each["name"]
        cls = class_of(rooms._classes, name)
        if cls is None:
            continue
        room = rooms.new(cls, name)
        _fill(room, each)
        seat = by_name.get(name)
        if seat is None:
            rooms.ended.append(room)
            continue
        room._seat = seat
        rooms._joined.add(room)
        if room.presence:
            seats.note_presence(each["using"], each["group"], 1)
            room._is_present = True
        if room.presence is True:
            present = room._backend.settings.present(each["group"])
            if websocket._seats is None:
                websocket._seats = {}
            limits = present or PresenceLimits(each["group"])
            websocket._seats[name] = (room.group, seat, limits, rooms.noting(name))
    rooms._waiting.extend(wire.Request(**each) for each in packed["waiting"])
    rooms._checked_at = clock.now() - packed["checked"]
    rooms._note_due()


def _fill(room: Room, packed: dict[str, Any]) -> None:
    """Gives a room what it had in another process, and no attributes beyond that."""
    name, using = packed["group"], packed["using"]
    if (name, using) != (room.name, DEFAULT) or is_written(room, "group_name"):
        room._group = Group(name, using)
    room._backend = backends.backend(using)
    if packed["presence"]:
        info, room._server_info = packed["info"], packed["server_info"]
        room._said = None if info is None else wire.text(info)
        room._since = packed["since"]
    if packed["state"]:
        room.state.update(packed["state"])
