"""Views of every kind, each under each decorator."""

import asyncio
import json

from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.utils.decorators import method_decorator
from django.views import View
from django.views.decorators.csrf import csrf_exempt

from dwebsocket import (
    ConnectionClosed,
    Group,
    ReceiveTimeout,
    WebSocket,
    WebSocketRequest,
    accept_websocket,
    group,
    require_websocket,
    websocket,
)
from rooms.models import Note


@accept_websocket
def echo(request: WebSocketRequest) -> HttpResponse | None:
    """A page, and a WebSocket."""
    if not request.is_websocket():
        return HttpResponse(f"hello {request.GET.get('name', '')}")
    for message in request.websocket.messages():
        request.websocket.send(message)
    return None


@accept_websocket(text_type=str, subprotocols=["chat.v2"], max_message_size=1000)
async def aecho(request: WebSocketRequest) -> HttpResponse | None:
    """The same, for an event loop."""
    if not request.is_websocket():
        return HttpResponse("open a WebSocket here")
    async for message in request.websocket:
        await request.websocket.asend(message)
    return None


def shown(request: HttpRequest, name: str) -> dict[str, str]:
    """The info of a member, as others see it."""
    return {"name": request.user.get_username(), "room": name}


@csrf_exempt
@require_websocket(groups=["room-{name}"], resume=True, presence=shown, fallback=True)
def room(request: WebSocketRequest, name: str) -> None:
    """Groups by the decorator, an argument of the URL, and what runs beside the view."""
    chat = request.websocket
    chat.on_close(Note.objects.create)
    chat.every(3600, chat.send_text, f"an hour in {name}")
    helper = chat.start(say, chat, "welcome", times=1)
    helper.join()
    for message in chat.messages():
        group(f"room-{name}").send_json({"said": str(message)}, exclude=chat)


def groups_of(request: HttpRequest, name: str) -> list[str | Group]:
    """The groups that a connection joins."""
    return [f"room-{name}", group("all")]


@websocket(accept=False, groups=groups_of)
async def aroom(request: WebSocketRequest, name: str) -> HttpResponse | None:
    """Decides by itself."""
    if name == "closed":
        return HttpResponse("closed", status=403)
    chat = request.websocket
    await chat.aaccept(headers={"X-Room": name})
    task = await chat.astart(asay, chat, "welcome", times=1)
    await asyncio.wait([task])
    try:
        said = await chat.areceive(timeout=60)
    except ReceiveTimeout:
        said = "nothing"
    except ConnectionClosed as closed:
        raise RuntimeError(f"{closed.code} {closed.reason}") from closed
    await group(f"room-{name}").asend(said, on_commit=True)
    await chat.aclose(4000, "enough")
    return None


def say(chat: WebSocket, text: str, times: int) -> None:
    """Says something, beside a view."""
    for _ in range(times):
        chat.send(text)


async def asay(chat: WebSocket, text: str, times: int) -> None:
    """As `say`."""
    for _ in range(times):
        await chat.asend(text)


@login_required
@require_websocket
def members(request: WebSocketRequest) -> None:
    """Behind a decorator of Django's, which wants views that give responses."""
    visits: int = request.session.get("visits", 0)
    request.session["visits"] = visits + 1
    request.websocket.send_json({"user": request.user.get_username(), "visits": visits})
    message = request.websocket.wait(timeout=60)
    if message is not None:
        request.websocket.send(json.dumps([len(message), request.websocket.read("nothing")]))


class Page(View):
    """One method of a class."""

    @method_decorator(accept_websocket(text_type=str))
    def get(self, request: WebSocketRequest) -> HttpResponse | None:
        """A page, and a WebSocket."""
        if request.is_websocket():
            request.websocket.send("from a class")
            return None
        return HttpResponse("open a WebSocket here")


@method_decorator(accept_websocket, name="get")
class WholePage(View):
    """A class, by the name of its method."""

    def get(self, request: WebSocketRequest) -> HttpResponse | None:
        """A page, and a WebSocket."""
        if request.is_websocket():
            request.websocket.send("from a class")
            return None
        return HttpResponse("open a WebSocket here")


@accept_websocket
def plain_request(request: HttpRequest) -> HttpResponse:
    """A view that knows nothing of WebSockets may be decorated all the same."""
    return HttpResponse(request.path)
