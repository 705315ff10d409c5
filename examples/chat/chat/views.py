"""
The lobby, a room, and the pulse.

A room has one address for its page and for its socket, and one view for both. Over the socket go
JSON objects. A browser sends::

    {"type": "name", "name": "Ada"}         sets the name; again to change it
    {"type": "say", "text": "Hello"}        once there is a name
    {"type": "typing", "active": true}      or false; sent to the others only

and gets ``welcome`` first (``people`` and ``history``), then ``message``, ``people`` and
``typing`` events as things happen.
"""

import json
import time

from django import forms
from django.db.models import OuterRef, Subquery
from django.shortcuts import get_object_or_404, redirect, render

from dwebsocket import accept_websocket, require_websocket

from .models import MAX_NAME, MAX_TEXT, Message, Room, slug_of
from .rooms import live


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
    rooms = Room.objects.annotate(
        last_author=Subquery(last.values("author")[:1]),
        last_text=Subquery(last.values("text")[:1]),
    )
    return render(request, "chat/lobby.html", {"rooms": rooms, "form": form})


@accept_websocket(text_type=str)
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

    websocket = request.websocket
    # Enter the room first, then send the history: a message in between comes twice rather than
    # never, and browsers recognise messages by their ids.
    live.enter(slug, websocket)
    try:
        history = room.history(after=positive(request.GET.get("after")))
        websocket.send_json(
            {
                **live.people(slug),
                "type": "welcome",
                "history": [message.as_event() for message in history],
            }
        )
        converse(websocket, room)
    finally:
        live.leave(slug, websocket)
        live.send(slug, live.people(slug))


def converse(websocket, room):
    """Serve the browser's messages until it has gone, or has sent an invalid one (1008)."""
    name = ""
    for message in websocket:
        match read(message):
            case {"type": "name", "name": str(wanted)}:
                name = tidy(wanted)[:MAX_NAME].strip()
                live.rename(room.slug, websocket, name)
                live.send(room.slug, live.people(room.slug))
            case {"type": "say", "text": str(text)}:
                text = storable(text).strip()[:MAX_TEXT]
                if name and text:
                    said = Message.objects.create(room=room, author=name, text=text)
                    live.send(room.slug, said.as_event())
            case {"type": "typing", "active": bool(active)}:
                if name:
                    event = {"type": "typing", "name": name, "active": active}
                    live.send(room.slug, event, besides=websocket)
            case _:
                websocket.close(1008, "not understood")
                return


@require_websocket(text_type=str)
def pulse(request):
    """
    Push the time and how many are in each room, at every full second.

    The end shows in ``send_json()``, which returns False then; ``wait()`` only passes the time,
    and wakes up early when the browser goes.
    """
    websocket = request.websocket
    while websocket.send_json(
        {"type": "pulse", "now": int(time.time() * 1000), "rooms": live.counts()}
    ):
        websocket.wait(timeout=1 - time.time() % 1)


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
