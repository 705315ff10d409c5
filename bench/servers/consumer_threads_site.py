"""The consumers of `consumer_threads.py`, with as many threads as the environment says."""

from __future__ import annotations

import os
import time
from pathlib import Path

from django.conf import settings

settings.configure(
    SECRET_KEY="for measuring only",
    ROOT_URLCONF=(),
    INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes"],
    DATABASES={
        "default": {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": Path(os.environ["FOLDER"]) / "db.sqlite3",
            "CONN_MAX_AGE": None,
        }
    },
    WEBSOCKET_CHANNELS_THREADS=int(os.environ["THREADS"]),
)

from django.core.asgi import get_asgi_application  # noqa: E402

http = get_asgi_application()

from channels.generic.websocket import AsyncWebsocketConsumer, WebsocketConsumer  # noqa: E402
from channels.routing import ProtocolTypeRouter, URLRouter  # noqa: E402
from django.contrib.auth.models import User  # noqa: E402
from django.core.management import call_command  # noqa: E402
from django.urls import path  # noqa: E402

call_command("migrate", verbosity=0)


class Echo(WebsocketConsumer):
    """Sends every message back."""

    def receive(self, text_data=None, bytes_data=None):
        """Send the message back as it came."""
        self.send(text_data=text_data)


class Slow(WebsocketConsumer):
    """Does so after 10 ms."""

    def receive(self, text_data=None, bytes_data=None):
        """Wait, as for a database on another machine."""
        time.sleep(0.01)
        self.send(text_data=text_data)


class Query(AsyncWebsocketConsumer):
    """Asks the database before each answer."""

    async def receive(self, text_data=None, bytes_data=None):
        """Count."""
        await self.send(text_data=str(await User.objects.acount()))


application = ProtocolTypeRouter(
    {
        "http": http,
        "websocket": URLRouter(
            [
                path("echo", Echo.as_asgi()),
                path("slow", Slow.as_asgi()),
                path("query", Query.as_asgi()),
            ]
        ),
    }
)
