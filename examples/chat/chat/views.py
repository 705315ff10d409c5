"""
The lobby, a room, the pulse, and a page for the shell.

A room has one address for its page, for its socket, and for the form with one's name; and one view
for all of them. Over the socket a browser sends JSON::

    {"id": 1, "data": {"key": "8f2c…", "text": "Hello"}}    says it, once there is a name
    {"typing": true}                                        sent to the others only

and gets what is said in the group of the room, numbered, whichever process serves whom; who joins
and leaves; ``{"typing": "Ada"}``; and first ``{"here": […]}`` with all who are there. Page, history
and socket are joined by positions, so a browser that was away gets what it has missed, once.
"""

import json
import os
import time
from typing import Any

from django.contrib.auth import login
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone

from dwebsocket import WebSocket, WebSocketHandler, WebSocketRequest, accept_websocket

from .forms import MAX_NAME, NameForm, RoomForm
from .models import Room, read

MAX_TEXT = 1000


def lobby(request: HttpRequest) -> HttpResponse:
    """Show the rooms; a POST with a name opens another one."""
    form = RoomForm(request.POST or None)
    if form.is_valid():
        return redirect(form.room())
    return render(request, "chat/lobby.html", {"rooms": Room.objects.all(), "form": form})


def seen_by_others(request: HttpRequest, slug: str) -> dict[str, str]:
    """Return what others in the room see of a user; the name of one who only listens is empty."""
    return {"name": request.user.get_username()}


@accept_websocket(
    groups=["room-{slug}"], resume=True, presence=seen_by_others, fallback=True, text_type=str
)
def room(request: WebSocketRequest, slug: str) -> HttpResponse | None:
    """Show the room by GET; take a name by POST; talk over a WebSocket."""
    room = get_object_or_404(Room, slug=slug)
    if request.is_websocket():
        talk(request.websocket, request.user.get_username(), room)
        return None
    form = NameForm(request.POST or None)
    if form.is_valid():
        login(request, form.user())
        return redirect(room)
    said = room.group.history()
    return render(
        request,
        "chat/room.html",
        {
            "room": room,
            "rooms": Room.objects.all(),
            "form": form,
            "said": said,
            "messages": map(read, said),
            "max_name": MAX_NAME,
            "max_text": MAX_TEXT,
        },
    )


def talk(websocket: WebSocket, name: str, room: Room) -> None:
    """Serve a browser's messages until it has gone, or has sent an invalid one (1008)."""
    websocket.join(room.typing)
    here = [{"key": member.key, "info": member.info} for member in room.group.members()]
    websocket.send_json({"here": here, "worker": os.getpid()})
    for message in websocket.messages():
        match decode(message):
            case {"id": number, "data": {"key": str(key), "text": str(text)}} if name:
                said = {"key": tidy(key, 40), "author": name, "text": tidy(text, MAX_TEXT)}
                room.group.send_json({**said, "at": timezone.now()})
                websocket.send_json({"id": number, "data": "said"})
            case {"typing": True} if name:
                room.typing.send_json({"typing": name}, exclude=websocket)
            case _:
                websocket.close(1008, "not understood")


def decode(message: str | bytes) -> Any:
    """Return the JSON in a message, or None when it has none."""
    try:
        return json.loads(message)
    except (ValueError, RecursionError):
        return None


def tidy(text: str, most: int) -> str:
    """Return a text that is not too long, and without what JSON allows and UTF-8 does not."""
    return text.encode("utf-8", "ignore").decode()[:most]


class Pulse(WebSocketHandler):
    """
    Pushes the time, and how many are in each room and what was said last there, once a second.

    It is for every open page, so it is a handler: between two ticks it occupies no thread.
    """

    fallback = True
    every = 1

    def tick(self) -> None:
        """Push."""
        rooms = {
            room.slug: {
                "here": sum(bool(member.info["name"]) for member in room.group.members()),
                "position": room.group.position(),
            }
            for room in Room.objects.all()
        }
        self.websocket.send_json({"now": int(time.time() * 1000), "rooms": rooms})


@accept_websocket(groups=["shell"], fallback=True)
async def shell(request: WebSocketRequest) -> HttpResponse | None:
    """Show what ``manage.py shell`` sends. The view has nothing to do, and occupies no thread."""
    if not request.is_websocket():
        return render(request, "chat/shell.html")
    async for _ in request.websocket:
        pass
    return None
