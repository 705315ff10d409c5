"""Views whose clients come back, of each kind, and a page with such clients."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from django.http import FileResponse, HttpRequest, HttpResponse
from django.urls import path

import dwebsocket
from dwebsocket import WebSocketHandler, accept_websocket
from dwebsocket.rooms import Room, rooms
from project.urls import urlpatterns as others

MODULES = {
    "dwebsocket.js": Path(dwebsocket.__file__).parent / "static" / "dwebsocket" / "dwebsocket.js",
    "crowd.mjs": Path(__file__).parent.parent / "chaos" / "crowd.mjs",
}
PAGE = """\
<!doctype html>
<script type="module">
  import { connect } from "/chaos/modules/dwebsocket.js";
  import { crowd } from "/chaos/modules/crowd.mjs";
  window.begin = (plans) => {
    window.clients = crowd(connect, location.origin.replace("http", "ws"), plans);
  };
</script>
"""


def rooms_of(request: HttpRequest, rooms: str) -> list[str]:
    """Give the groups of a URL such as `1-3`."""
    return [f"room-{number}" for number in rooms.split("-")]


@accept_websocket(groups=rooms_of, resume=True, fallback=True)
def waits(request: Any, rooms: str) -> None:
    """Wait for the client's end."""
    request.websocket.wait_closed()


@accept_websocket(groups=rooms_of, resume=True, fallback=True)
async def awaits(request: Any, rooms: str) -> None:
    """Wait for the client's end in a task."""
    await request.websocket.await_closed()


class Waits(WebSocketHandler):
    """Waits without a thread."""

    groups = staticmethod(rooms_of)
    resume = True
    fallback = True

    def receive(self, message: str | bytes) -> None:
        """Ignore it."""


class Waited(Room):
    """A room for everybody."""

    name = "room-<int:number>"


def page(request: HttpRequest) -> HttpResponse:
    """Give the page."""
    return HttpResponse(PAGE)


def module(request: HttpRequest, name: str) -> FileResponse:
    """Give a module of JavaScript."""
    return FileResponse(MODULES[name].open("rb"), content_type="text/javascript")


urlpatterns = [
    *others,
    path("chaos/view/<str:rooms>/", waits),
    path("chaos/async/<str:rooms>/", awaits),
    path("chaos/handler/<str:rooms>/", Waits.as_view()),
    path("chaos/rooms/", rooms(Waited, fallback=True)),
    path("chaos/page/", page),
    path("chaos/modules/<str:name>", module),
]
