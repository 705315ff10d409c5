"""
Consumers for faults and reloads: sync and async ones that do the same.

Each is in a group of all, and in one of its own. The query string names a connection (``id``), and
the method that is to fail (``fail``). Each end is noted in a file, which outlives the process.
"""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from urllib.parse import parse_qs

from asgiref.sync import async_to_sync
from channels.generic.websocket import AsyncWebsocketConsumer, WebsocketConsumer

from dwebsocket.exceptions import GroupUnavailable

# The folder of the server, where its tests read.
FOLDER = Path(os.environ["WEBSOCKET_RUNTIME_DIR"])
POURED = bytes(100_000)
# The end of a client that has gone is known by the last of these.
SENDS = 20


def note(file: str, line: str) -> None:
    """Add a line to a file of the server's folder, in one write."""
    with (FOLDER / file).open("a") as out:
        out.write(f"{line}\n")


def wait_for(file: str) -> None:
    """Block until there is a file of the server's folder."""
    while not (FOLDER / file).exists():
        time.sleep(0.01)


class Fault(Exception):
    """A consumer's own failure."""


class _Named:
    groups = ("everybody",)

    def begin(self) -> None:
        """Read the query string."""
        query = parse_qs(self.scope["query_string"].decode())
        self.id = query.get("id", ["none"])[0]
        self.fails = query.get("fail", [""])[0]
        self.own_group = f"own.{self.id}"
        self.fail_in("connect")

    def fail_in(self, method: str) -> None:
        """Fail where the query string says so."""
        if self.fails == method:
            raise Fault(f"{method} of {self.id}")


class Soaked(_Named, WebsocketConsumer):
    """A sync consumer, which does what the first word of a message says; it echoes any other."""

    def connect(self):
        self.begin()
        async_to_sync(self.channel_layer.group_add)(self.own_group, self.channel_name)
        self.accept()

    def receive(self, text_data=None, bytes_data=None):
        self.fail_in("receive")
        word, _, rest = (text_data or "").partition(" ")
        send = async_to_sync(self.channel_layer.group_send)
        if word == "keep":
            note("kept", rest)
            send(self.own_group, {"type": "kept", "text": rest})
        elif word == "tell":
            try:
                send("everybody", {"type": "told", "text": rest})
            except GroupUnavailable:
                self.send("away")
        elif word == "pour":
            for _ in range(1000):
                self.send(bytes_data=POURED)
        elif word == "block":
            self.send("blocking")
            wait_for(rest)
            for _ in range(SENDS):
                self.send("not blocking")
                time.sleep(0.01)
        else:
            self.send(text_data=text_data, bytes_data=bytes_data)

    def kept(self, event):
        self.send(f"kept {event['text']}")

    def told(self, event):
        self.send(f"told {event['text']}")

    def disconnect(self, code):
        note("ends", f"{self.id} {code}")
        async_to_sync(self.channel_layer.group_discard)(self.own_group, self.channel_name)
        self.fail_in("disconnect")


class AsyncSoaked(_Named, AsyncWebsocketConsumer):
    """The same in the event loop."""

    async def connect(self):
        self.begin()
        await self.channel_layer.group_add(self.own_group, self.channel_name)
        await self.accept()

    async def receive(self, text_data=None, bytes_data=None):
        self.fail_in("receive")
        word, _, rest = (text_data or "").partition(" ")
        send = self.channel_layer.group_send
        if word == "keep":
            note("kept", rest)
            await send(self.own_group, {"type": "kept", "text": rest})
        elif word == "tell":
            try:
                await send("everybody", {"type": "told", "text": rest})
            except GroupUnavailable:
                await self.send("away")
        elif word == "pour":
            for _ in range(1000):
                await self.send(bytes_data=POURED)
        elif word == "block":
            await self.send("blocking")
            while not (FOLDER / rest).exists():  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            for _ in range(SENDS):
                await self.send("not blocking")
                await asyncio.sleep(0.01)
        elif word == "cancel":
            asyncio.current_task().cancel()
            await asyncio.sleep(60)
        else:
            await self.send(text_data=text_data, bytes_data=bytes_data)

    async def kept(self, event):
        await self.send(f"kept {event['text']}")

    async def told(self, event):
        await self.send(f"told {event['text']}")

    async def disconnect(self, code):
        note("ends", f"{self.id} {code}")
        await self.channel_layer.group_discard(self.own_group, self.channel_name)
        self.fail_in("disconnect")
