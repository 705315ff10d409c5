"""A consumer of Channels, as it was: not a line is changed."""

import json

from channels.generic.websocket import AsyncWebsocketConsumer


class ChatConsumer(AsyncWebsocketConsumer):
    """One room of a chat."""

    async def connect(self):
        """Joins the room."""
        self.room = f"room_{self.scope['url_route']['kwargs']['room']}"
        await self.channel_layer.group_add(self.room, self.channel_name)
        await self.accept()

    async def disconnect(self, close_code):
        """Leaves it."""
        await self.channel_layer.group_discard(self.room, self.channel_name)

    async def receive(self, text_data=None, bytes_data=None):
        """A browser says something."""
        text = json.loads(text_data)["text"]
        await self.channel_layer.group_send(self.room, {"type": "chat.message", "text": text})

    async def chat_message(self, event):
        """The room hears it."""
        await self.send(text_data=json.dumps({"text": event["text"]}))
