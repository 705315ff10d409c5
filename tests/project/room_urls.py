"""The test project's URLs, and a group over whatever backend WEBSOCKET_GROUPS names."""

import os

from django.http import HttpResponse
from django.urls import path

from dwebsocket import accept_websocket, group
from project.urls import urlpatterns as others


@accept_websocket(groups=["{name}"])
def room(request, name):
    """Tell the worker's number, and send what comes to all."""
    request.websocket.send(str(os.getpid()))
    for message in request.websocket.messages():
        group(name).send(message)


@accept_websocket
async def async_room(request, name):
    """As `room`, as a task."""
    await request.websocket.ajoin(name)
    await request.websocket.asend(str(os.getpid()))
    async for message in request.websocket.messages():
        await group(name).asend(message)


def count(request, name):
    """Count members."""
    return HttpResponse(str(group(name).count()))


urlpatterns = [
    *others,
    path("rooms/<name>/", room),
    path("rooms/<name>/async/", async_room),
    path("rooms/<name>/count/", count),
]
