"""Async views; each shows one behaviour."""

from __future__ import annotations

import asyncio

from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, JsonResponse

from dwebsocket import accept_websocket, require_websocket

#: The ends that views saw, by name.
seen: dict[str, object] = {}


def seen_by(request: HttpRequest, name: str) -> JsonResponse:
    """Return the end that a view noted."""
    return JsonResponse({"seen": seen.get(name)})


@require_websocket(text_type=str)
async def async_echo(request: HttpRequest) -> None:
    """Echo with exact types."""
    async for message in request.websocket:
        await request.websocket.asend(message)


@require_websocket
async def async_json(request: HttpRequest) -> None:
    """Double numbers."""
    ws = request.websocket
    while True:
        data = await ws.areceive_json()
        await ws.asend_json({"twice": 2 * data["number"]})


@require_websocket
async def async_orm(request: HttpRequest) -> None:
    """Create and count rows, and send the name of the user."""
    user = await request.auser() if hasattr(request, "auser") else None
    async for message in request.websocket:
        await User.objects.acreate(username=message)
        count = await User.objects.filter(username=message).acount()
        await request.websocket.asend_json({"there": count, "user": str(user)})


@require_websocket
async def async_impatient(request: HttpRequest) -> None:
    """Give up waiting again and again, and lose no message by it."""
    ws = request.websocket
    while True:
        try:
            message = await asyncio.wait_for(ws.areceive(), 0.001)
        except asyncio.TimeoutError:
            continue
        await ws.asend(message)


@require_websocket
async def async_tasks(request: HttpRequest) -> None:
    """Push and listen at the same time, and be cancelled in the middle."""
    ws = request.websocket

    async def push() -> None:
        for number in range(1_000_000):
            await ws.asend(f"push {number}")
            await asyncio.sleep(0.01)

    async def listen() -> None:
        async for message in ws:
            await ws.asend(f"heard {message}")
            if message == "stop":
                return

    pushing = asyncio.create_task(push())
    await listen()
    pushing.cancel()
    try:
        await pushing
    except asyncio.CancelledError:
        await ws.asend("cancelled")


@require_websocket
async def async_reports(request: HttpRequest, name: str) -> None:
    """Note how the connection ended."""
    ws = request.websocket
    async for _ in ws:
        pass
    seen[name] = [ws.close_code, ws.is_closed()]


@require_websocket
async def async_raises(request: HttpRequest) -> None:
    """Break after a message."""
    await request.websocket.areceive()
    raise RuntimeError("this async view is broken")


@accept_websocket(accept=False)
async def async_decides(request: HttpRequest) -> HttpResponse | None:
    """Do with the handshake what the query says, and echo if that is to accept."""
    what = request.GET["do"]
    if what == "reject":
        await request.websocket.areject(404)
        return None
    if what == "deny":
        raise PermissionDenied
    if what == "page":
        return HttpResponse("instead", status=402)
    await request.websocket.aaccept(headers={"X-Decided": "yes"})
    async for message in request.websocket:
        await request.websocket.asend(message)
    return None
