"""Rooms beside what they are compared with: plain groups, a handler's echo, plain connections."""

from __future__ import annotations

import os

import django_site

django_site.configure(__name__)

from django.conf import settings  # noqa: E402
from django.core.wsgi import get_wsgi_application  # noqa: E402
from django.http import JsonResponse  # noqa: E402
from django.urls import path  # noqa: E402

from dwebsocket import WebSocketHandler, group  # noqa: E402
from dwebsocket.rooms import Room, rooms  # noqa: E402

# The limits are above all that is measured.
for name in ("ROOMS_RATE", "ROOMS_BURST", "MAX_ROOMS"):
    setattr(settings, f"WEBSOCKET_{name}", 1_000_000)
settings.WEBSOCKET_DRAIN = int(os.environ.get("BENCH_DRAIN", "0"))
# Clients here do not answer pings.
QUIET = {"ping_interval": None}


class Any(Room):
    """Allows everybody."""

    name = "room-<int:pk>"
    events = ("typing",)

    def receive(self, event, data):
        """Say to all what has come, or acknowledge."""
        if event == "say":
            self.group.send(data)
        return data


class Echo(WebSocketHandler):
    """Send back what comes."""

    ping_interval = None

    def receive(self, message):
        """Echo."""
        self.websocket.send(message)


class Grouped(WebSocketHandler):
    """Join as many groups as a message says."""

    ping_interval = None

    def receive(self, message):
        """Join, and say so."""
        for number in range(int(message)):
            self.websocket.join(f"room-{number}")
        self.websocket.send(f"joined {message}")


def publish(request):
    """Publish so many messages to a group; answers when all are handed over."""
    target = group("room-1")
    for number in range(int(request.GET["count"])):
        target.send(f"{number:0{int(request.GET['size'])}}")
    return JsonResponse({"done": True})


def process(request):
    """Answer which process this is."""
    return JsonResponse({"pid": os.getpid()})


urlpatterns = [
    path("ready", django_site.ready),
    path("process", process),
    path("publish", publish),
    path("live", rooms(Any, **QUIET)),
    path("echo", Echo.as_view()),
    path("grouped", Grouped.as_view()),
]
application = get_wsgi_application()
