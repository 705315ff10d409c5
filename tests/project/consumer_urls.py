"""The consumers as views: each by itself, and all of them by a router."""

from __future__ import annotations

from channels.auth import AuthMiddlewareStack
from channels.routing import ProtocolTypeRouter, URLRouter
from channels.security.websocket import AllowedHostsOriginValidator
from django.http import JsonResponse
from django.urls import path, re_path

from dwebsocket import asgi_websocket
from project import consumers

_BY_NAME = (
    consumers.Echo, consumers.AsyncEcho, consumers.Json, consumers.AsyncJson,
    consumers.Choosing, consumers.AsyncChoosing, consumers.Closing, consumers.AsyncClosing,
    consumers.Denying, consumers.AsyncDenying, consumers.Accepting, consumers.AsyncAccepting,
    consumers.Grouped, consumers.AsyncGrouped, consumers.Private, consumers.Listed,
    consumers.Facts, consumers.AsyncFacts, consumers.Late,
    consumers.Elsewhere, consumers.Kinds, consumers.Counting,
)  # fmt: skip

router = ProtocolTypeRouter(
    {
        "websocket": AllowedHostsOriginValidator(
            AuthMiddlewareStack(
                URLRouter(
                    [
                        re_path(r"ws/room/(?P<room_name>\w+)/$", consumers.Room.as_asgi()),
                        path("ws/async-room/<room_name>/", consumers.AsyncRoom.as_asgi()),
                        path("ws/facts/<int:number>/", consumers.Facts.as_asgi()),
                        path("ws/pushing/", consumers.Pushing.as_asgi()),
                        path("ws/pouring/", consumers.Pouring.as_asgi()),
                        path("ws/async-facts/", consumers.AsyncFacts.as_asgi()),
                    ]
                )
            )
        )
    }
)


def ends(request):
    """Give the close codes that the consumers with this query have seen."""
    return JsonResponse(consumers.ENDS.get(request.META["QUERY_STRING"], []), safe=False)


urlpatterns = [
    *[path(f"{cls.__name__}/", asgi_websocket(cls.as_asgi())) for cls in _BY_NAME],
    path("application/", asgi_websocket(consumers.application)),
    path("unpaid/", asgi_websocket(consumers.unpaid)),
    path("small/", asgi_websocket(consumers.AsyncEcho.as_asgi(), max_message_size=10)),
    path("writing/", asgi_websocket(consumers.Writing.as_asgi())),
    path("flooding/", asgi_websocket(consumers.Pouring.as_asgi())),
    path("flooding/stack/", asgi_websocket(AuthMiddlewareStack(consumers.Pouring.as_asgi()))),
    path("pushing/", asgi_websocket(consumers.Pushing.as_asgi())),
    path(
        "pouring/",
        asgi_websocket(
            consumers.Pouring.as_asgi(), send_buffer=200_000, send_timeout=0.2, close_timeout=0.1
        ),
    ),
    path(
        "",
        asgi_websocket(router, send_buffer=200_000, send_timeout=0.2, close_timeout=0.1),
    ),
    path("below/<team>/", asgi_websocket(router)),
    path("ends/", ends),
]
