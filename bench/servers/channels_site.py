"""Subjects channels-…: consumers of Django Channels; no channel layer but for the chat."""

from __future__ import annotations

import django_site

django_site.configure(__name__)

from channels.generic.websocket import AsyncWebsocketConsumer, WebsocketConsumer  # noqa: E402
from channels.routing import ProtocolTypeRouter, URLRouter  # noqa: E402
from django.core.asgi import get_asgi_application  # noqa: E402
from django.urls import path  # noqa: E402


class Echo(AsyncWebsocketConsumer):
    """Sends every message back."""

    async def receive(self, text_data=None, bytes_data=None):
        """Send the message back as it came."""
        await self.send(text_data=text_data, bytes_data=bytes_data)


class SyncEcho(WebsocketConsumer):
    """Sends every message back, from a thread."""

    def receive(self, text_data=None, bytes_data=None):
        """Send the message back as it came."""
        self.send(text_data=text_data, bytes_data=bytes_data)


class Chat(AsyncWebsocketConsumer):
    """Sends every message to all members, as Channels' tutorial does, but without JSON."""

    async def connect(self):
        """Become a member."""
        await self.channel_layer.group_add("room", self.channel_name)
        await self.accept()

    async def disconnect(self, close_code):
        """Leave the members."""
        await self.channel_layer.group_discard("room", self.channel_name)

    async def receive(self, text_data=None, bytes_data=None):
        """Send the message to the group."""
        await self.channel_layer.group_send("room", {"type": "say", "text": text_data})

    async def say(self, event):
        """Send a message of the group to this member."""
        await self.send(text_data=event["text"])


routes = URLRouter(
    [
        path("echo", Echo.as_asgi()),
        path("sync-echo", SyncEcho.as_asgi()),
        path("chat", Chat.as_asgi()),
    ]
)
if django_site.HAS_MIDDLEWARE:
    # Django's own does not run for consumers; Channels' tutorial has this instead.
    from channels.auth import AuthMiddlewareStack
    from channels.security.websocket import AllowedHostsOriginValidator

    routes = AllowedHostsOriginValidator(AuthMiddlewareStack(routes))
urlpatterns = [path("ready", django_site.ready)]
application = ProtocolTypeRouter(
    {
        "http": get_asgi_application(),
        "websocket": routes,
    }
)
