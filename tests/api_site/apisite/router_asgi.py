"""The site for ASGI servers, its consumers behind Channels' router: nothing is ours."""

import os

from channels.auth import AuthMiddlewareStack
from channels.routing import ProtocolTypeRouter, URLRouter
from channels.security.websocket import AllowedHostsOriginValidator
from django.core.asgi import get_asgi_application
from django.urls import path
from strawberry.channels import GraphQLWSConsumer

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "apisite.settings")
os.environ.setdefault("APISITE_URLS", "apisite.pages")
django_application = get_asgi_application()

from graph.schema import schema  # noqa: E402
from notes.consumers import NoteConsumer  # noqa: E402

application = ProtocolTypeRouter(
    {
        "http": django_application,
        "websocket": AllowedHostsOriginValidator(
            AuthMiddlewareStack(
                URLRouter(
                    [
                        path("ws/graphql/", GraphQLWSConsumer.as_asgi(schema=schema)),
                        path("ws/notes/", NoteConsumer.as_asgi()),
                    ]
                )
            )
        ),
    }
)
