"""Views for processes whose calls of the system fail: each says what it could not do."""

from __future__ import annotations

import logging
import os
from typing import Any

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import path

from dwebsocket import (
    GroupUnavailable,
    WebSocketError,
    accept_websocket,
    aconnect,
    connect,
    group,
)
from dwebsocket.signals import group_interrupted
from project.urls import urlpatterns as others

ROOM = "anomaly"
log = logging.getLogger("project")


def tell(sender: Any, websocket: Any, **kwargs: Any) -> None:
    """Tell a client that it may have missed messages."""
    websocket.send("interrupted")


group_interrupted.connect(tell)


@accept_websocket(groups=[ROOM], text_type=str, fallback=True)
def chat(request: HttpRequest) -> None:
    """Pass each message on, and answer whether that has worked."""
    websocket = request.websocket
    websocket.send("ready")
    for message in websocket:
        try:
            group(ROOM).send(message)
        except GroupUnavailable as error:
            log.warning("not sent: %s", error)
            websocket.send(f"failed {message[:6]}")
        else:
            websocket.send(f"ok {message[:6]}")


@accept_websocket(groups=[ROOM], text_type=str, fallback=True)
async def async_chat(request: HttpRequest) -> None:
    """The same in a task."""
    websocket = request.websocket
    await websocket.asend("ready")
    async for message in websocket:
        try:
            await group(ROOM).asend(message)
        except GroupUnavailable as error:
            log.warning("not sent: %s", error)
            await websocket.asend(f"failed {message[:6]}")
        else:
            await websocket.asend(f"ok {message[:6]}")


def kept(request: HttpRequest) -> JsonResponse:
    """Give the numbers of all messages that are kept."""
    return JsonResponse({"kept": [str(entry.message)[:6] for entry in group(ROOM).history()]})


def _unable(error: Exception) -> HttpResponse:
    log.warning("not done: %s", error)
    return HttpResponse(repr(error), status=502)


def dial(request: HttpRequest) -> HttpResponse:
    """Ask the echo of another server."""
    try:
        with connect(request.GET["url"]) as websocket:
            websocket.send("echo")
            return HttpResponse(websocket.receive(timeout=20))
    except WebSocketError as error:
        return _unable(error)


async def async_dial(request: HttpRequest) -> HttpResponse:
    """The same in a task."""
    try:
        async with aconnect(request.GET["url"]) as websocket:
            await websocket.asend("echo")
            return HttpResponse(await websocket.areceive(timeout=20))
    except WebSocketError as error:
        return _unable(error)


def fork(request: HttpRequest) -> HttpResponse:
    """Fork."""
    try:
        child = os.fork()
    except OSError as error:
        return _unable(error)
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    return HttpResponse("echo")


urlpatterns = [
    *others,
    path("anomaly/chat/", chat),
    path("anomaly/async-chat/", async_chat),
    path("anomaly/kept/", kept),
    path("anomaly/dial/", dial),
    path("anomaly/async-dial/", async_dial),
    path("anomaly/fork/", fork),
]
