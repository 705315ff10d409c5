"""WebSocket handlers of every kind, as projects write them."""

import asyncio
import threading

from asgiref.sync import sync_to_async
from django.core.exceptions import PermissionDenied
from django.http import HttpResponse, HttpResponseRedirect

from chat.models import Note
from dwebsocket import WebSocketHandler

# What the handlers saw at their ends, by path.
ends = {}
# A handler that waits for `release` has begun to.
begun, release = threading.Event(), threading.Event()


class Club(WebSocketHandler):
    """For members: greets them, passes on what they say, counts the minutes."""

    groups = ("club-{club}",)
    every = 60
    minutes = 0

    def connect(self):
        if self.kwargs["club"] == "closed":
            raise PermissionDenied
        if self.user.is_anonymous:
            return HttpResponseRedirect("/login/")
        return None

    def receive(self, message):
        if message == "bye":
            self.websocket.close(4000, "as you wish")
        elif message == "here?":
            self.websocket.send("here")
        elif message == "fail":
            raise ValueError("cannot stand it")
        elif message == "secret":
            raise PermissionDenied
        else:
            self.group("club-{club}").send_json(
                {"from": self.user.username, "said": message}, exclude=self.websocket
            )

    def tick(self):
        self.minutes += 1
        self.websocket.send_text(f"minute {self.minutes}")

    def disconnect(self, code, reason):
        ends[self.request.path] = (code, reason)


class AsyncClub(WebSocketHandler):
    """The same, of coroutine functions."""

    groups = ("club-{club}",)
    every = 60
    minutes = 0

    async def connect(self):
        if self.kwargs["club"] == "closed":
            raise PermissionDenied
        # `request.auser`, from Django 5.0 on.
        if await sync_to_async(lambda: self.user.is_anonymous)():
            return HttpResponseRedirect("/login/")
        return None

    async def receive(self, message):
        if message == "bye":
            await self.websocket.aclose(4000, "as you wish")
        elif message == "here?":
            await self.websocket.asend("here")
        elif message == "fail":
            raise ValueError("cannot stand it")
        elif message == "secret":
            raise PermissionDenied
        else:
            name = self.user.username
            await self.group("club-{club}").asend_json(
                {"from": name, "said": message}, exclude=self.websocket
            )

    async def tick(self):
        self.minutes += 1
        await self.websocket.asend_text(f"minute {self.minutes}")

    async def disconnect(self, code, reason):
        ends[self.request.path] = (code, reason)


class MixedClub(Club):
    """Sync ones beside coroutine functions: at home on threads."""

    async def tick(self):
        self.minutes += 1
        await self.websocket.asend_text(f"minute {self.minutes}")

    async def disconnect(self, code, reason):
        await asyncio.sleep(0)
        ends[self.request.path] = (code, reason)


class Notes(WebSocketHandler):
    """Writes into the database, in each of its methods."""

    def connect(self):
        Note.objects.create(text="connect")

    def receive(self, message):
        Note.objects.create(text=message)
        self.websocket.send_json(list(Note.objects.values_list("text", flat=True)))

    def disconnect(self, code, reason):
        Note.objects.create(text="disconnect")


class AsyncNotes(WebSocketHandler):
    """The same, of coroutine functions."""

    async def connect(self):
        await Note.objects.acreate(text="connect")

    async def receive(self, message):
        await Note.objects.acreate(text=message)
        await self.websocket.asend_json([note.text async for note in Note.objects.all()])

    async def disconnect(self, code, reason):
        await Note.objects.acreate(text="disconnect")


class FailsLate(WebSocketHandler):
    """Has an error that the client does not see."""

    def disconnect(self, code, reason):
        raise ValueError("too late for the client")


class Stuck(WebSocketHandler):
    """A call that does not end."""

    def receive(self, message):
        begun.set()
        release.wait()


class AsyncStuck(WebSocketHandler):
    """An awaitable that is not done."""

    async def receive(self, message):
        await self.wait_for_it()

    async def wait_for_it(self):
        begun.set()
        while not release.is_set():
            await asyncio.sleep(0.01)


class Page(WebSocketHandler):
    """A page at the same address."""

    max_message_size = 1000
    subprotocols = ("chat.v2", "chat.v1")

    def get(self, request):
        return HttpResponse("open a WebSocket here")

    def receive(self, message):
        self.websocket.send(message)
