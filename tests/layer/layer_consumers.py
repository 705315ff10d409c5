"""
Consumers as Channels' documentation has them, and clients that talk through them.

For `layer_process.py`: Channels' test helpers import a server.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

from asgiref.sync import async_to_sync
from channels.generic.websocket import AsyncJsonWebsocketConsumer, WebsocketConsumer
from channels.layers import get_channel_layer
from channels.testing import WebsocketCommunicator

from dwebsocket import group

FOREVER = 20


class AsyncChat(AsyncJsonWebsocketConsumer):
    """What comes from one client goes to all."""

    groups = ("chat",)

    async def receive_json(self, content: Any, **kwargs: Any) -> None:
        """Send it to the group."""
        await self.channel_layer.group_send("chat", {"type": "chat.message", "message": content})

    async def chat_message(self, event: dict[str, Any]) -> None:
        """Send it to the client."""
        await self.send_json(event["message"])

    async def group_message(self, event: dict[str, Any]) -> None:
        """Send what came from a view."""
        await self.send(event.get("text"), event.get("bytes"))


class SyncChat(WebsocketConsumer):
    """The same, as Channels' tutorial has it."""

    def connect(self) -> None:
        """Join."""
        async_to_sync(self.channel_layer.group_add)("chat", self.channel_name)
        self.accept()

    def disconnect(self, code: int) -> None:
        """Leave."""
        async_to_sync(self.channel_layer.group_discard)("chat", self.channel_name)

    def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        """Send it to the group."""
        assert text_data is not None
        message = {"type": "chat.message", "message": json.loads(text_data)}
        async_to_sync(self.channel_layer.group_send)("chat", message)

    def chat_message(self, event: dict[str, Any]) -> None:
        """Send it to the client."""
        self.send(text_data=json.dumps(event["message"]))

    def group_message(self, event: dict[str, Any]) -> None:
        """Send what came from a view."""
        self.send(event.get("text"), event.get("bytes"))


KINDS = {"async": AsyncChat, "sync": SyncChat}


async def joined(*kinds: str) -> list[WebsocketCommunicator]:
    """Connect clients."""
    found = [WebsocketCommunicator(KINDS[each].as_asgi(), "/chat/") for each in kinds]
    for each in found:
        assert await each.connect(FOREVER) == (True, None)
    return found


async def leave(clients: list[WebsocketCommunicator]) -> None:
    """Disconnect clients, and drop the layer."""
    for each in clients:
        await each.disconnect(timeout=FOREVER)
    layer = get_channel_layer()
    assert layer._node()._groups.names() == []
    await layer.close()


async def group_chat(*kinds: str) -> None:
    """What one says, all get."""
    clients = await joined(*kinds)
    for number, client in enumerate(clients * 3):
        await client.send_json_to({"number": number})
        for each in clients:
            assert await each.receive_json_from(FOREVER) == {"number": number}
    await leave(clients)


async def from_outside(*kinds: str) -> None:
    """A thread without an event loop sends to consumers."""
    clients = await joined(*kinds)
    message = {"type": "chat.message", "message": "hi"}
    await asyncio.to_thread(async_to_sync(get_channel_layer().group_send), "chat", message)
    for each in clients:
        assert await each.receive_json_from(FOREVER) == "hi"
    await leave(clients)


async def from_elsewhere(ready: str, *kinds: str) -> None:
    """Another process sends to consumers, when it is told by a message to its channel."""
    clients = await joined(*kinds)
    await get_channel_layer().send(ready, {"type": "ready"})
    for number in range(20):
        for each in clients:
            assert await each.receive_json_from(FOREVER) == number
    await leave(clients)


async def from_a_group(*kinds: str) -> None:
    """`group(…)` reaches consumers by their method `group_message`."""
    clients = await joined(*kinds)
    for message in ("hi", b"\xff"):
        await group("chat").asend(message)
        for each in clients:
            assert await each.receive_from(FOREVER) == message
    await leave(clients)
