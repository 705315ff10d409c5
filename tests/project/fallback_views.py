"""Views with the fallback for clients without WebSockets."""

from __future__ import annotations

import asyncio
from typing import Any

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import path

from dwebsocket import (
    ConnectionClosed,
    WebSocketHandler,
    accept_websocket,
    group,
    require_websocket,
)
from dwebsocket.handshake.fallback import forwarding

_poll = forwarding.poll


def _told_poll(*arguments: Any) -> bytes | str:
    """Say on stdout when a poll waits: its client cannot see that."""
    found = _poll(*arguments)
    if found == "held":
        print("a poll is held", flush=True)
    return found


forwarding.poll = _told_poll

#: What views saw at their end, by name.
seen: dict[str, Any] = {}


def seen_by(request: HttpRequest, name: str) -> JsonResponse:
    """Return what a view noted."""
    return JsonResponse({"seen": seen.get(name)})


@accept_websocket(fallback=True, text_type=str)
def echo(request: HttpRequest) -> HttpResponse | None:
    """Echo, or be a page."""
    if not request.is_websocket():
        return HttpResponse("a page")
    for message in request.websocket:
        request.websocket.send(message)
    return None


@require_websocket(fallback=True, text_type=str, subprotocols=["chat.v2", "chat"])
async def async_echo(request: HttpRequest) -> None:
    """Echo as a task."""
    async for message in request.websocket:
        await request.websocket.asend(message)


@require_websocket(fallback=True)
def facts(request: HttpRequest) -> None:
    """Tell what the view sees of its connection."""
    websocket = request.websocket
    websocket.send_json(
        {
            "transport": websocket.transport,
            "is_websocket": request.is_websocket(),
            "path": request.path,
            "subprotocol": websocket.subprotocol,
        }
    )


@accept_websocket(fallback=True, text_type=str, accept=False)
def decides(request: HttpRequest, answer: str) -> HttpResponse | None:
    """Decide before the client is answered."""
    if answer == "pay":
        return HttpResponse("pay", status=402)
    if answer == "reject":
        request.websocket.reject()
        return None
    request.session["seen"] = True
    request.websocket.accept()
    request.websocket.send(request.websocket.receive())
    return None


@require_websocket(fallback=True, text_type=str, max_message_size=1000)
def at_most_1000(request: HttpRequest) -> None:
    """Take small messages."""
    for message in request.websocket:
        request.websocket.send(f"{len(message)}")


@require_websocket(fallback=True, ping_interval=0.2, ping_timeout=20)
def lively(request: HttpRequest) -> None:
    """Wait, with signs of life."""
    request.websocket.wait()


@require_websocket(fallback=True, receive_buffer=1000)
def never_read(request: HttpRequest) -> None:
    """Read nothing before the connection ends."""
    request.websocket.send("ready")
    request.websocket._connection.await_end(60)


@require_websocket(fallback=True, send_buffer=1000, send_timeout=1)
def pours(request: HttpRequest) -> None:
    """Send more than a client takes that does not read."""
    while request.websocket.send_bytes(b"x" * 10_000):
        pass


@require_websocket(fallback=True)
def raises(request: HttpRequest) -> None:
    """Break."""
    request.websocket.wait()
    raise RuntimeError("this view is broken")


@require_websocket(fallback=True)
def closes(request: HttpRequest) -> None:
    """Close with a code of its own."""
    request.websocket.send("first")
    request.websocket.close(4000, 'a "reason"\n')


@require_websocket(fallback=True)
def reports(request: HttpRequest, name: str) -> None:
    """Note how the connection ended."""
    websocket = request.websocket
    try:
        while True:
            websocket.receive()
    except ConnectionClosed:
        seen[name] = [websocket.close_code, websocket.close_reason]


impatient = require_websocket(fallback=True, ping_interval=0.5, ping_timeout=0.5)(
    reports.__wrapped__
)


@require_websocket(fallback=True, text_type=str, groups=["fallback-{room}"])
def room(request: HttpRequest, room: str) -> None:
    """Pass each message on to the group."""
    for message in request.websocket:
        if message.startswith("binary "):
            group(f"fallback-{room}").send(message.encode())
        else:
            group(f"fallback-{room}").send(message)


@accept_websocket(text_type=str)
def without(request: HttpRequest) -> HttpResponse | None:
    """Have no fallback."""
    if not request.is_websocket():
        return HttpResponse(f"a page with {request.GET.get('transport')}")
    return None


class Handler(WebSocketHandler):
    """Echo as a handler."""

    fallback = True

    def receive(self, message: str | bytes) -> None:
        """Send it back."""
        send = self.websocket.send_text if isinstance(message, str) else self.websocket.send_bytes
        send(message)

    def disconnect(self, code: int, reason: str) -> None:
        """Note the end."""
        seen[self.kwargs["name"]] = [code, reason]


class RoomHandler(WebSocketHandler):
    """Pass each message on to the group, with no thread between them."""

    fallback = True
    groups = ("fallback-{name}",)

    def receive(self, message: str | bytes) -> None:
        """Send it to all."""
        self.group("fallback-{name}").send(message)


class AsyncHandler(Handler):
    """Echo as a handler in an event loop."""

    async def receive(self, message: str | bytes) -> None:
        """Send it back."""
        await self.websocket.asend(message)


async def page_that_waits(request: HttpRequest, name: str) -> HttpResponse:
    """Be a page that knows nothing of a fallback, and takes longer than its client has."""
    seen[name] = request.body.decode()
    try:
        await asyncio.sleep(3600)
    finally:
        seen[name] = "cancelled"
    return HttpResponse()


urlpatterns = [
    path("page-that-waits/<str:name>/", page_that_waits),
    path("echo/", echo),
    path("async-echo/", async_echo),
    path("facts/", facts),
    path("decides/<str:answer>/", decides),
    path("at-most-1000/", at_most_1000),
    path("lively/", lively),
    path("never-read/", never_read),
    path("pours/", pours),
    path("raises/", raises),
    path("closes/", closes),
    path("reports/<str:name>/", reports),
    path("impatient/<str:name>/", impatient),
    path("room/<str:room>/", room),
    path("without/", without),
    path("handler/<str:name>/", Handler.as_view()),
    path("async-handler/<str:name>/", AsyncHandler.as_view()),
    path("room-handler/<str:name>/", RoomHandler.as_view()),
    path("seen/<str:name>/", seen_by),
]
