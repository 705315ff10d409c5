"""
The lobby, a room, the pulse, and a page for the shell.

A room has one address for its page and for its socket, and one view for both. Over the socket go
JSON objects. A browser sends::

    {"type": "name", "name": "Ada"}         sets the name; again to change it
    {"type": "say", "text": "Hello"}        once there is a name
    {"type": "typing", "active": true}      or false; sent to the others only

and gets ``message``, ``people`` and ``typing`` events as things happen, in whatever process they
happen, and once ``welcome`` (``people`` and ``history``). It is mostly the first one: the socket is
in its group before the history is read, so that no message is missed.
"""

import json
import time

from django import forms
from django.db.models import OuterRef, Subquery
from django.shortcuts import get_object_or_404, redirect, render

from dwebsocket import accept_websocket, require_websocket

from . import rooms
from .models import MAX_NAME, MAX_TEXT, Message, Room, slug_of


class RoomForm(forms.Form):
    """The name of a room to open."""

    name = forms.CharField(max_length=40)

    def clean_name(self):
        """Refuse a name of which no address can be made."""
        name = self.cleaned_data["name"]
        if not slug_of(name):
            raise forms.ValidationError("Please use some letters or digits.")
        return name

    def open(self):
        """Return the room of that name, new or not."""
        name = self.cleaned_data["name"]
        room, _ = Room.objects.get_or_create(slug=slug_of(name), defaults={"name": name})
        return room


def lobby(request):
    """Show the rooms; a POST with a name opens another one."""
    form = RoomForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        return redirect(form.open())
    last = Message.objects.filter(room=OuterRef("pk")).order_by("-id")
    found = Room.objects.annotate(
        last_author=Subquery(last.values("author")[:1]),
        last_text=Subquery(last.values("text")[:1]),
    )
    return render(request, "chat/lobby.html", {"rooms": found, "form": form})


@accept_websocket(groups=["room-{slug}"], text_type=str)
def room(request, slug):
    """
    Show the room by GET; talk in it over a WebSocket.

    ``?after=<id>`` on the socket's address leaves out the history up to that message, for a
    browser that comes back. A room that does not exist is a 404, or close code 4404.
    """
    room = get_object_or_404(Room, slug=slug)
    if not request.is_websocket():
        context = {
            "room": room,
            "rooms": Room.objects.all(),
            "max_name": MAX_NAME,
            "max_text": MAX_TEXT,
        }
        return render(request, "chat/room.html", context)

    # A message that is sent while the history is read comes twice rather than never: browsers
    # recognise messages by their ids.
    websocket = request.websocket
    seat = rooms.sit_down(room, websocket)
    try:
        websocket.every(rooms.KEEP_EVERY_S, rooms.keep, seat)
        history = room.history(after=positive(request.GET.get("after")))
        websocket.send_json(
            {
                **rooms.people(room),
                "type": "welcome",
                "history": [message.as_event() for message in history],
                "worker": rooms.worker(),
            }
        )
        converse(websocket, room, seat)
    finally:
        rooms.stand_up(seat)


def converse(websocket, room, seat):
    """Serve the browser's messages until it has gone, or has sent an invalid one (1008)."""
    name = ""
    for message in websocket:
        match read(message):
            case {"type": "name", "name": str(wanted)}:
                name = tidy(wanted)[:MAX_NAME].strip()
                rooms.rename(seat, name)
            case {"type": "say", "text": str(text)}:
                text = storable(text).strip()[:MAX_TEXT]
                if name and text:
                    rooms.say(room, name, text)
            case {"type": "typing", "active": bool(active)}:
                if name:
                    event = {"type": "typing", "name": name, "active": active}
                    rooms.group_of(room).send_json(event, exclude=websocket)
            case _:
                websocket.close(1008, "not understood")
                return


@require_websocket(groups=["lobby"], text_type=str)
def pulse(request):
    """
    Push the time and how many are in each room, at every full second; first the unread messages.

    ``?read=<slug>:<id>``, once a room, says what the browser has seen. That there is a new message
    comes by the group "lobby". The end shows in ``send_json()``, which returns False then;
    ``wait()`` only passes the time, and wakes up early when the browser goes.
    """
    websocket = request.websocket
    read = (pair.rpartition(":") for pair in request.GET.getlist("read"))
    websocket.send_json(rooms.unread({slug: positive(last) for slug, _, last in read}))
    while websocket.send_json(
        {"type": "pulse", "now": int(time.time() * 1000), "rooms": rooms.counts()}
    ):
        websocket.wait(timeout=1 - time.time() % 1)


@accept_websocket(groups=["shell"])
async def shell(request):
    """Show what ``manage.py shell`` sends. The view has nothing to do, and occupies no thread."""
    if not request.is_websocket():
        return render(request, "chat/shell.html")
    async for _ in request.websocket:
        pass


def read(message):
    """Return the object in a message, or None when it is no JSON object."""
    try:
        event = json.loads(message)
    except (ValueError, RecursionError):
        return None
    return event if isinstance(event, dict) else None


def storable(text):
    """Return ``text`` without characters that JSON allows and a database refuses."""
    return text.encode("utf-8", "ignore").decode("utf-8").replace("\0", "")


def tidy(name):
    """Return a name on one line: no control characters, no runs of blanks."""
    return " ".join("".join(c if c.isprintable() else " " for c in name).split())


def positive(text):
    """Return the whole number in ``text``, or 0 when it is not one that a database takes."""
    return int(text) if text and text.isascii() and text.isdigit() and len(text) < 19 else 0
