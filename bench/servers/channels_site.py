"""Subject channels-daphne: an asynchronous consumer of Django Channels, no channel layer."""

from __future__ import annotations

import django_site

django_site.configure(__name__)

from channels.generic.websocket import AsyncWebsocketConsumer  # noqa: E402
from channels.routing import ProtocolTypeRouter, URLRouter  # noqa: E402
from django.core.asgi import get_asgi_application  # noqa: E402
from django.urls import path  # noqa: E402


class Echo(AsyncWebsocketConsumer):
    """Sends every message back."""

    async def receive(self, text_data=None, bytes_data=None):
        """Send the message back as it came."""
        await self.send(text_data=text_data, bytes_data=bytes_data)


urlpatterns = [path("ready", django_site.ready)]
application = ProtocolTypeRouter(
    {
        "http": get_asgi_application(),
        "websocket": URLRouter([path("echo", Echo.as_asgi())]),
    }
)
