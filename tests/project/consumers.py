"""Consumers as projects of Channels have them, and ASGI applications without Channels."""

from __future__ import annotations

import json
import threading

from asgiref.sync import async_to_sync
from channels.db import database_sync_to_async
from channels.exceptions import AcceptConnection, DenyConnection, StopConsumer
from channels.generic.websocket import (
    AsyncJsonWebsocketConsumer,
    AsyncWebsocketConsumer,
    JsonWebsocketConsumer,
    WebsocketConsumer,
)
from channels.layers import get_channel_layer
from django.contrib.auth.models import Group, User

# The close codes that consumers have seen, by their query strings.
ENDS: dict[str, list[int]] = {}


def note_end(scope, code):
    """Note the end of a consumer."""
    ENDS.setdefault(scope["query_string"].decode(), []).append(code)


class Echo(WebsocketConsumer):
    """Echo text and bytes, on a thread."""

    def receive(self, text_data=None, bytes_data=None):
        assert threading.current_thread() is not threading.main_thread()
        self.send(text_data=text_data, bytes_data=bytes_data)

    def disconnect(self, code):
        note_end(self.scope, code)


class AsyncEcho(AsyncWebsocketConsumer):
    """Echo text and bytes, in the event loop."""

    async def receive(self, text_data=None, bytes_data=None):
        await self.send(text_data=text_data, bytes_data=bytes_data)

    async def disconnect(self, code):
        note_end(self.scope, code)


class Json(JsonWebsocketConsumer):
    """Echo JSON."""

    def receive_json(self, content):
        self.send_json(content)


class AsyncJson(AsyncJsonWebsocketConsumer):
    """Echo JSON."""

    async def receive_json(self, content):
        await self.send_json(content)


class Facts(WebsocketConsumer):
    """Tell what the scope says, and what the database has."""

    def connect(self):
        self.accept()
        scope = self.scope
        facts = {
            "type": scope["type"],
            "path": scope["path"],
            "query": scope["query_string"].decode(),
            "route": scope["url_route"]["kwargs"],
            "host": dict(scope["headers"])[b"host"].decode(),
            "client": bool(scope["client"]),
            "user": str(scope["user"]),
            "users": User.objects.count(),
        }
        self.send(json.dumps(facts))


class AsyncFacts(AsyncWebsocketConsumer):
    """Tell what the database has, asked in both ways of async code."""

    async def connect(self):
        await self.accept()
        users = await User.objects.acount(), await database_sync_to_async(User.objects.count)()
        await self.send(json.dumps({"user": self.scope["user"].username, "users": users}))


class Choosing(WebsocketConsumer):
    """Choose a subprotocol, and send a header."""

    def connect(self):
        assert self.scope["subprotocols"] == ["one", "two"]
        self.accept("two", headers=[(b"x-room", b"7")])


class AsyncChoosing(AsyncWebsocketConsumer):
    """Choose a subprotocol, and send a header."""

    async def connect(self):
        assert self.scope["subprotocols"] == ["one", "two"]
        await self.accept("two", headers=[(b"x-room", b"7")])


class Closing(WebsocketConsumer):
    """Close with a code and a reason."""

    def connect(self):
        self.accept()
        self.send("last words", close=True)

    def close(self, code=None, reason=None):
        super().close(4007, "the reason")

    def disconnect(self, code):
        note_end(self.scope, code)


class AsyncClosing(AsyncWebsocketConsumer):
    """Close with a code and a reason."""

    async def connect(self):
        await self.accept()
        await self.send("last words")
        await self.close(code=4007, reason="the reason")

    async def disconnect(self, code):
        note_end(self.scope, code)


class Denying(WebsocketConsumer):
    """Refuse by an exception."""

    def connect(self):
        raise DenyConnection

    def disconnect(self, code):
        note_end(self.scope, code)


class AsyncDenying(AsyncWebsocketConsumer):
    """Refuse by closing before accepting."""

    async def connect(self):
        await self.close()

    async def disconnect(self, code):
        note_end(self.scope, code)


class Accepting(WebsocketConsumer):
    """Accept by an exception."""

    def connect(self):
        raise AcceptConnection

    def receive(self, text_data=None, bytes_data=None):
        raise LookupError(text_data)


class AsyncAccepting(AsyncWebsocketConsumer):
    """Accept by an exception."""

    async def connect(self):
        raise AcceptConnection

    async def receive(self, text_data=None, bytes_data=None):
        raise LookupError(text_data)


class Grouped(WebsocketConsumer):
    """A consumer with groups: a message of one is as one of the client."""

    groups = ("all",)

    def receive(self, text_data=None, bytes_data=None):
        message = {"type": "notice", "text": text_data}
        async_to_sync(self.channel_layer.group_send)("all", message)

    def notice(self, event):
        self.send(text_data=event["text"])


class AsyncGrouped(AsyncWebsocketConsumer):
    """The same in the event loop."""

    groups = ("all",)

    async def receive(self, text_data=None, bytes_data=None):
        await self.channel_layer.group_send("all", {"type": "notice", "text": text_data})

    async def notice(self, event):
        await self.send(text_data=event["text"])


class Elsewhere(AsyncWebsocketConsumer):
    """Has another channel layer than the default one."""

    channel_layer_alias = "other"

    async def receive(self, text_data=None, bytes_data=None):
        note = {"type": "note", "text": text_data}
        await get_channel_layer("other").send(self.channel_name, note)

    async def note(self, event):
        await self.send(text_data=event["text"])


class Kinds(WebsocketConsumer):
    """Tell what a message was."""

    def receive(self, text_data=None, bytes_data=None):
        self.send(text_data=repr((text_data, bytes_data)))


class Counting(AsyncWebsocketConsumer):
    """Count rows in a database, slowly, in the way that the message names."""

    async def receive(self, text_data=None, bytes_data=None):
        groups = Group.objects.extra(where=["pg_sleep(0.005) IS NOT NULL"])
        if text_data == "acount":
            await self.send(str(await groups.acount()))
        else:
            await self.send(str(await database_sync_to_async(groups.count)()))


class Private(AsyncWebsocketConsumer):
    """Asks itself, by its channel, for a handler that is private."""

    async def receive(self, text_data=None, bytes_data=None):
        await self.channel_layer.send(self.channel_name, {"type": text_data})

    async def _hidden(self, event):
        await self.send("must not be called")


# As tutorials have it: a consumer by its low-level handlers, and a list of all that are there.
CONN_LIST = []


class Listed(WebsocketConsumer):
    """A room without groups."""

    def websocket_connect(self, message):
        self.accept()
        CONN_LIST.append(self)

    def websocket_receive(self, message):
        text = message["text"]
        if text == "close":
            self.close()
            return
        for conn in CONN_LIST:
            conn.send(f"{len(CONN_LIST)}: {text}")

    def websocket_disconnect(self, message):
        CONN_LIST.remove(self)
        raise StopConsumer()


class Room(WebsocketConsumer):
    """A room, its group named by the URL."""

    def connect(self):
        self.room_name = self.scope["url_route"]["kwargs"]["room_name"]
        self.room_group_name = f"room_{self.room_name}"
        async_to_sync(self.channel_layer.group_add)(self.room_group_name, self.channel_name)
        self.accept()

    def disconnect(self, close_code):
        async_to_sync(self.channel_layer.group_discard)(self.room_group_name, self.channel_name)

    def receive(self, text_data):
        message = json.loads(text_data)["message"]
        event = {"type": "room.message", "message": message}
        async_to_sync(self.channel_layer.group_send)(self.room_group_name, event)

    def room_message(self, event):
        self.send(text_data=json.dumps({"message": event["message"]}))


class AsyncRoom(AsyncWebsocketConsumer):
    """The same in the event loop."""

    async def connect(self):
        self.room_name = self.scope["url_route"]["kwargs"]["room_name"]
        self.room_group_name = f"room_{self.room_name}"
        await self.channel_layer.group_add(self.room_group_name, self.channel_name)
        await self.accept()

    async def disconnect(self, close_code):
        await self.channel_layer.group_discard(self.room_group_name, self.channel_name)

    async def receive(self, text_data):
        message = json.loads(text_data)["message"]
        event = {"type": "room.message", "message": message}
        await self.channel_layer.group_send(self.room_group_name, event)

    async def room_message(self, event):
        await self.send(text_data=json.dumps({"message": event["message"]}))


class Pushing(WebsocketConsumer):
    """Send from a thread of its own."""

    def receive(self, text_data=None, bytes_data=None):
        def push():
            for number in range(3):
                self.send(f"{text_data} {number}")

        thread = threading.Thread(target=push)
        thread.start()
        thread.join()


class Pouring(WebsocketConsumer):
    """Send until the client has gone, as fast as it takes it."""

    def receive(self, text_data=None, bytes_data=None):
        for _ in range(int(text_data)):
            self.send(bytes_data=bytes(100_000))

    def disconnect(self, code):
        note_end(self.scope, code)


class Writing(WebsocketConsumer):
    """Write the code of its end into a file that the client names."""

    def receive(self, text_data=None, bytes_data=None):
        self.file = text_data
        self.send("noted")

    def disconnect(self, code):
        with open(self.file, "a") as file:
            file.write(f"{code}\n")


class Late(AsyncWebsocketConsumer):
    """Decide only when a message of its own channel says so."""

    async def connect(self):
        await self.channel_layer.send(self.channel_name, {"type": "admit"})

    async def admit(self, event):
        await self.accept()
        await self.send("welcome")


async def application(scope, receive, send):
    """Echo without Channels."""
    assert (await receive())["type"] == "websocket.connect"
    await send({"type": "websocket.accept"})
    while (event := await receive())["type"] == "websocket.receive":
        await send({**event, "type": "websocket.send"})
    note_end(scope, event["code"])


async def unpaid(scope, receive, send):
    """Refuse with a response."""
    await receive()
    start = {"type": "websocket.http.response.start", "status": 402}
    await send({**start, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "websocket.http.response.body", "body": b"no money"})
