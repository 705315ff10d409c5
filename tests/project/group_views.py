"""Views whose connections belong to groups."""

from __future__ import annotations

import os

from django.http import HttpRequest, HttpResponse
from django.urls import path

from dwebsocket import accept_websocket, close_user, group, user


@accept_websocket(groups=["room-{room}"], text_type=str)
def room(request: HttpRequest, room: str) -> None:
    """Send the number of the process, then whatever comes to the whole room."""
    request.websocket.send(str(os.getpid()))
    for message in request.websocket:
        if message is not None:
            group(f"room-{room}").send(message)


@accept_websocket(groups=lambda request, room: [f"room-{room}"], text_type=str)
async def async_room(request: HttpRequest, room: str) -> None:
    """The same in a task."""
    await request.websocket.asend(str(os.getpid()))
    async for message in request.websocket:
        await group(f"room-{room}").asend(message)


@accept_websocket(text_type=str)
def inbox(request: HttpRequest) -> None:
    """Send the number of the process, and then nothing: messages come by the user's group."""
    request.websocket.send(str(os.getpid()))
    for _ in request.websocket:
        pass


def members(request: HttpRequest, room: str) -> HttpResponse:
    """Count a room."""
    return HttpResponse(str(group(f"room-{room}").count()))


def publish(request: HttpRequest, room: str) -> HttpResponse:
    """Send the query's message to a room."""
    group(f"room-{room}").send(request.GET["message"])
    return HttpResponse("sent")


def notify(request: HttpRequest) -> HttpResponse:
    """Send the query's message to all connections of the signed-in user."""
    user(request.user).send(request.GET["message"])
    return HttpResponse("sent")


def ban(request: HttpRequest) -> HttpResponse:
    """Close all connections of the signed-in user."""
    return HttpResponse(str(close_user(request.user, code=4403, reason="banned")))


urlpatterns = [
    path("room/<str:room>/", room),
    path("async-room/<str:room>/", async_room),
    path("inbox/", inbox),
    path("members/<str:room>/", members),
    path("publish/<str:room>/", publish),
    path("notify/", notify),
    path("ban/", ban),
]
