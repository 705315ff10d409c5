"""
The people in each room, for all processes of the site.

Events go to the group of a room, so it does not matter which process serves which browser. Their
names stand in the database: a row for each WebSocket, its seat, with the time at which its process
has last looked after it. The seats of a process that was killed are soon too old.
"""

import os
import time
from datetime import timedelta

from django.db.models import Count, Q
from django.utils import timezone

from dwebsocket import group

from .models import Message, Room, Seat

KEEP_EVERY_S = 10
GONE_AFTER_S = 30


def group_of(room):
    """Return the group of a room's WebSockets. The view's decorator has the same name."""
    return group(f"room-{room.slug}")


def oldest():
    """Return the time before which a seat is too old."""
    return timezone.now() - timedelta(seconds=GONE_AFTER_S)


def sit_down(room, websocket):
    """Give ``websocket`` a seat in the room, without a name as yet."""
    return Seat.objects.create(room=room, socket=websocket.id, seen=timezone.now())


def rename(seat, name):
    """Give a seat a name; an empty one makes it a listener's."""
    Seat.objects.filter(pk=seat.pk).update(name=name)
    show_people(seat.room)


def keep(seat):
    """Look after a seat, to be called every ``KEEP_EVERY_S``; clear those that are too old."""
    Seat.objects.filter(pk=seat.pk).update(seen=timezone.now())
    gone, _ = Seat.objects.filter(room=seat.room, seen__lt=oldest()).delete()
    if gone:
        show_people(seat.room)


def stand_up(seat):
    """Free a seat."""
    Seat.objects.filter(pk=seat.pk).delete()
    show_people(seat.room)


def people(room):
    """Return the event that lists the names in the room, each once, in order."""
    # Taken before the names are read: of two events the one with the higher number knows all that
    # the other one does. The clock is the same in all processes of a machine.
    revision = time.time_ns() // 1000
    seats = Seat.objects.filter(room=room, seen__gte=oldest()).exclude(name="")
    names = sorted(set(seats.values_list("name", flat=True)), key=str.casefold)
    return {"type": "people", "people": names, "revision": revision}


def show_people(room):
    """Send the list of names to all in the room."""
    group_of(room).send_json(people(room))


def counts():
    """Return how many different names each room holds, as ``{slug: number}``."""
    here = Q(seats__seen__gte=oldest()) & ~Q(seats__name="")
    rooms = Room.objects.annotate(here=Count("seats__name", filter=here, distinct=True))
    return dict(rooms.values_list("slug", "here"))


def say(room, name, text):
    """Keep a message, send it to the room, and tell all pages that there is one."""
    said = Message.objects.create(room=room, author=name, text=text)
    group_of(room).send_json(said.as_event())
    group("lobby").send_json({"type": "said", "room": room.slug, "id": said.pk})


def unread(read):
    """
    Return the event with the number of unread messages in each room, and its last message.

    Args:
        read: The last message that the browser has seen, by room. In others it has read all.
    """
    rooms = {}
    for slug in Room.objects.values_list("slug", flat=True):
        messages = Message.objects.filter(room__slug=slug)
        last = messages.order_by("-pk").values_list("pk", flat=True).first() or 0
        rooms[slug] = {"unread": messages.filter(pk__gt=read.get(slug, last)).count(), "last": last}
    return {"type": "unread", "rooms": rooms}


def worker():
    """Return the number of this process, for the page."""
    return os.getpid()
