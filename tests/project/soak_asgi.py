"""The consumers of `soak_consumers` behind Channels' routers, as in any project of Channels."""

import os

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "project.settings")

from django.core.asgi import get_asgi_application

http = get_asgi_application()

# Both want Django to be set up.
from channels.routing import ProtocolTypeRouter, URLRouter  # noqa: E402
from django.urls import path  # noqa: E402

from project import consumers, soak_consumers  # noqa: E402

application = ProtocolTypeRouter(
    {
        "http": http,
        "websocket": URLRouter(
            [
                path("sync/", soak_consumers.Soaked.as_asgi()),
                path("async/", soak_consumers.AsyncSoaked.as_asgi()),
                path("echo/", consumers.AsyncEcho.as_asgi()),
            ]
        ),
    }
)
