"""`manage.py runworker doubling halving`, Channels' command: ``layer_worker.py SETTINGS``."""

from __future__ import annotations

import sys
from typing import Any

import layer_process
from asgiref.sync import async_to_sync
from channels.consumer import AsyncConsumer, SyncConsumer
from channels.routing import ChannelNameRouter


class Doubling(AsyncConsumer):
    """Doubles numbers, and sends each to the channel that the message names."""

    async def double(self, message: dict[str, Any]) -> None:
        """Answer."""
        answer = {"type": "doubled", "number": message["number"] * 2}
        await self.channel_layer.send(message["to"], answer)


class Halving(SyncConsumer):
    """Halves them."""

    def halve(self, message: dict[str, Any]) -> None:
        """Answer."""
        answer = {"type": "halved", "number": message["number"] // 2}
        async_to_sync(self.channel_layer.send)(message["to"], answer)


application = ChannelNameRouter({"doubling": Doubling.as_asgi(), "halving": Halving.as_asgi()})

if __name__ == "__main__":
    layer_process.configure()
    from django.core.management import call_command

    sys.modules["layer_worker"] = sys.modules["__main__"]
    call_command("runworker", "doubling", "halving", verbosity=0)
