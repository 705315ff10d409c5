"""Groups and users from anywhere, and what the process tells about itself."""

from datetime import datetime
from typing import TYPE_CHECKING

from django.contrib.auth.models import User

from dwebsocket import (
    Group,
    GroupUnavailable,
    close_user,
    drain,
    event_counts,
    group,
    group_statistics,
    statistics,
    user,
)

if TYPE_CHECKING:
    from dwebsocket import WebSocket


def publish(room: Group, person: User, own: "WebSocket") -> list[str | bytes]:
    """Sends in every way; gives what was said."""
    room.send("text", exclude=[own, own.id], on_commit="default")
    room.send(memoryview(b"binary"))
    room.send_json({"at": datetime.now().astimezone()}, exclude=own.id)
    try:
        user(person).send("to all tabs", on_commit=True)
        user(person.pk, using="default").close(4000, "enough")
    except GroupUnavailable:
        return []
    with room.joined(own) as is_member:
        if is_member:
            own.join(room, since=room.position(), partial=True)
    own.leave("another", group("third"))
    return [entry.message for entry in room.history(limit=10)]


async def apublish(room: Group) -> int:
    """The same, in an event loop."""
    await room.asend("text")
    history = await room.ahistory(since=await room.aposition())
    return await room.acount() + len(history)


def names_of(room: Group) -> list[str]:
    """The users in a room."""
    return [member.info["name"] for member in room.members()]


def told() -> dict[str, int]:
    """Numbers."""
    found = statistics()
    published = {name: counters["published"] for name, counters in group_statistics().items()}
    events = {name: sum(counts.values()) for name, counts in event_counts().items()}
    return {"open": found["open"]["total"], **published, **events}


def stop(person: User) -> int:
    """Ends what is open."""
    closed = close_user(person, code=4000, reason="bye")
    drain()
    return closed
