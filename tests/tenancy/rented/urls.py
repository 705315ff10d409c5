"""Views that tell the notes of their tenant at each message, and keep the last one as a note."""

import asyncio
import os

from asgiref.sync import sync_to_async
from channels.db import database_sync_to_async
from channels.generic.websocket import AsyncWebsocketConsumer, WebsocketConsumer
from django.contrib import admin
from django.contrib.auth import get_user_model, login, logout
from django.db import connection
from django.http import HttpResponse
from django.urls import path

from dwebsocket import WebSocketHandler, asgi_websocket, require_websocket, user
from rented.notes.models import Note


def notes():
    """Give the notes of the present tenant, by a query."""
    return ",".join(Note.objects.order_by("pk").values_list("text", flat=True))


def add(text):
    """Add one."""
    Note.objects.create(text=text)


@require_websocket(text_type=str)
def sync_view(request):
    """On a thread."""
    websocket = request.websocket
    last = []
    websocket.on_close(lambda: add(last[-1]))
    for message in websocket:
        last.append(message)
        if message == "beside":
            websocket.start(tell, websocket).join()
        elif message == "every":
            websocket.every(0.01, tell, websocket)
        else:
            tell(websocket)


def tell(websocket):
    """Send the notes of the present tenant."""
    websocket.send(notes())


@require_websocket(text_type=str)
async def async_view(request):
    """As a task."""
    websocket = request.websocket
    last = []
    websocket.on_close(lambda: add(last[-1]))
    async for message in websocket:
        last.append(message)
        if message == "schema":
            await websocket.asend(connection.schema_name)
        elif message == "together":
            both = await asyncio.gather(sync_to_async(notes)(), Note.objects.acount())
            await websocket.asend(str(both[0]))
        else:
            found = [note.text async for note in Note.objects.order_by("pk")]
            await websocket.asend(",".join(found))


class Handler(WebSocketHandler):
    """On the threads of all handlers."""

    def connect(self):
        """Note the tenant."""
        self.last = notes()

    def receive(self, message):
        """Tell it."""
        assert self.last
        self.last = message
        self.websocket.send(notes())

    def disconnect(self, code, reason):
        """Keep the last message."""
        add(self.last)


class AsyncHandler(WebSocketHandler):
    """In the event loop."""

    async def receive(self, message):
        """Tell the tenant's notes."""
        self.last = message
        await self.websocket.asend(await sync_to_async(notes)())

    async def disconnect(self, code, reason):
        """Keep the last message."""
        await sync_to_async(add)(self.last)


class Consumer(WebsocketConsumer):
    """A consumer of Channels."""

    def receive(self, text_data=None, bytes_data=None):
        """Tell the tenant's notes."""
        self.last = text_data
        self.send(text_data=notes())

    def disconnect(self, code):
        """Keep the last message."""
        add(self.last)


class AsyncConsumer(AsyncWebsocketConsumer):
    """A consumer of Channels in the event loop."""

    async def receive(self, text_data=None, bytes_data=None):
        """Tell the tenant's notes."""
        self.last = text_data
        await self.send(text_data=await database_sync_to_async(notes)())

    async def disconnect(self, code):
        """Keep the last message."""
        await database_sync_to_async(add)(self.last)


@require_websocket
def waits(request):
    """Waits for the end."""
    request.websocket.wait()


def log_in(request, name):
    """Log a user of the tenant in."""
    login(request, get_user_model().objects.get(username=name))
    return HttpResponse(str(request.user.pk))


def log_out(request):
    """Log out."""
    logout(request)
    return HttpResponse("")


def send(request, text):
    """Send to one's own WebSockets."""
    user(request.user).send(text)
    return HttpResponse("")


def show(request):
    """Give the notes of the request's tenant."""
    return HttpResponse(notes())


def change(request):
    """Change one's own password."""
    request.user.set_password("another")
    request.user.save()
    return HttpResponse("")


urlpatterns = [
    path("status/", lambda request: HttpResponse(str(os.getpid()))),
    path("log-in/<str:name>/", log_in),
    path("log-out/", log_out),
    path("send/<str:text>/", send),
    path("change/", change),
    path("notes/", show),
    path("admin/", admin.site.urls),
    path("ws/sync/", sync_view),
    path("ws/async/", async_view),
    path("ws/handler/", Handler.as_view()),
    path("ws/async-handler/", AsyncHandler.as_view()),
    path("ws/consumer/", asgi_websocket(Consumer.as_asgi())),
    path("ws/async-consumer/", asgi_websocket(AsyncConsumer.as_asgi())),
    path("ws/waits/", waits),
]
