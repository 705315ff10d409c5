"""What tests of `dwebsocket.js` connect to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from django.http import FileResponse, HttpRequest, HttpResponse
from django.template import engines
from django.urls import path

import dwebsocket
from dwebsocket import accept_websocket, group
from dwebsocket.rooms import Room, rooms

PAGE = """\
{% load static %}<!doctype html>
<title>A page</title>
<script type="module">
  import { connect } from "{% static "dwebsocket/dwebsocket.js" %}";
  window.states = [];
  window.messages = [];
  window.socket = connect("/client/ws/");
  window.fails = () => { throw new Error("mine"); };
  window.addEventListener("unhandledrejection", ({ reason }) => messages.push(reason.message));
  socket.on("state", (state) => states.push(state));
  socket.on("message", (message) => messages.push(message));
</script>
"""


class Live(Room):
    """A room in which all may say something."""

    name = "client-<slug:name>"
    presence = True
    events = ("typing",)

    def allow(self) -> bool:
        """Nobody may be in one."""
        return self.kwargs["name"] != "closed"

    def info(self) -> dict[str, str]:
        """What the URL says."""
        return {"name": self.request.GET.get("name", "")}

    def receive(self, event: str, data: Any) -> Any:
        """Say it to all; or go away."""
        if event == "evict":
            self.group.evict(data or self.websocket.id, "Rude.")
        elif event == "cut":
            self.websocket.close(1012)
        else:
            self.group.send_json(data)
        return [event, data]


MODULE = Path(dwebsocket.__file__).parent / "static" / "dwebsocket" / "dwebsocket.js"
ROOM_PAGE = """\
<!doctype html>
<title>A room</title>
<script type="module">
  import { connect } from "/client/dwebsocket.js";
  window.messages = [];
  window.recoveries = [];
  window.socket = connect("/client/room/%s/", {
    resume: true, fallback: true, positions: { "client-%s": "%s" },
  });
  socket.on("message", (message) => messages.push(message));
  socket.on("recovered", (recovery) => recoveries.push(recovery));
</script>
"""


@accept_websocket(text_type=str, subprotocols=["chat"])
def answers(request: HttpRequest) -> None:
    """Answer requests, close as told, echo all else."""
    websocket = request.websocket
    for message in websocket:
        asked = json.loads(message) if message[:1] in ("{", b"{") else {}
        if "id" in asked:
            websocket.send_json({"id": asked["id"], "data": {"got": asked["data"]}})
        elif "close" in asked:
            websocket.close(*asked["close"])
        else:
            websocket.send(message)


@accept_websocket(fallback=True, text_type=str, groups=["client-{room}"], resume=True)
def room(request: HttpRequest, room: str) -> None:
    """Pass each message on to the group."""
    for message in request.websocket:
        group(f"client-{room}").send(message)


@accept_websocket(
    groups=lambda request: [f"client-with-a-longer-name-{number:03}" for number in range(120)],
    resume=True,
)
def many(request: HttpRequest) -> None:
    """Be in many groups, until a message comes."""
    request.websocket.receive()
    request.websocket.close(1012)


def room_page(request: HttpRequest, room: str) -> HttpResponse:
    """Connect to a room, from its present position on."""
    position = group(f"client-{room}").position()
    return HttpResponse(ROOM_PAGE % (room, room, position))


def module(request: HttpRequest) -> FileResponse:
    """Serve the module."""
    return FileResponse(MODULE.open("rb"), content_type="text/javascript")


def page(request: HttpRequest) -> HttpResponse:
    """Load the module."""
    return HttpResponse(engines["django"].from_string(PAGE).render({}, request))


urlpatterns = [
    path("ws/", answers),
    path("page/", page),
    path("room/<room>/", room),
    path("many/", many),
    path("live/", rooms(Live, fallback=True)),
    path("room-page/<room>/", room_page),
    path("dwebsocket.js", module),
]
