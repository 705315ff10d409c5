"""The consumers of `promise_urls` behind Channels' routers and middleware."""

import os

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "project.settings")

from django.core.asgi import get_asgi_application

http = get_asgi_application()

# These want Django to be set up.
from channels.auth import AuthMiddlewareStack  # noqa: E402
from channels.routing import ProtocolTypeRouter, URLRouter  # noqa: E402
from django.urls import path  # noqa: E402
from sockpuppet.routing import socket_patterns  # noqa: E402

from project import promise_consumers  # noqa: E402

application = ProtocolTypeRouter(
    {
        "http": http,
        "websocket": AuthMiddlewareStack(
            URLRouter(
                [
                    path("game/", promise_consumers.Game.as_asgi()),
                    path("async-game/", promise_consumers.AsyncGame.as_asgi()),
                    *socket_patterns,
                ]
            )
        ),
    }
)
