"""Subjects dwebsocket2…: views as the documentation shows them, the tutorials' chat, and groups."""

from __future__ import annotations

import django_site

django_site.configure(__name__)

from django.core.wsgi import get_wsgi_application  # noqa: E402
from django.urls import path  # noqa: E402

from dwebsocket import WebSocketHandler, accept_websocket, group  # noqa: E402

members = []


@accept_websocket
def echo(request):
    """Send every message back."""
    for message in request.websocket:
        request.websocket.send(message)


@accept_websocket(ping_interval=None)
def quiet_echo(request):
    """Send every message back, to clients that do not answer pings."""
    for message in request.websocket:
        request.websocket.send(message)


@accept_websocket
def chat(request):
    """Send every message to all members."""
    members.append(request.websocket)
    try:
        for message in request.websocket:
            if message is None:
                break
            for member in list(members):
                member.send(message)
    finally:
        members.remove(request.websocket)


@accept_websocket(groups=["members"], text_type=str)
def grouped(request):
    """Send every message to all members of a group."""
    for message in request.websocket:
        group("members").send(message)


@accept_websocket
async def aecho(request):
    """Send every message back."""
    async for message in request.websocket:
        await request.websocket.asend(message)


@accept_websocket
async def achat(request):
    """Send every message to all members."""
    members.append(request.websocket)
    try:
        async for message in request.websocket:
            for member in list(members):
                await member.asend(message)
    finally:
        members.remove(request.websocket)


class Handler(WebSocketHandler):
    """Send every message back."""

    def receive(self, message):
        """Send it back."""
        self.websocket.send(message)


class AsyncHandler(WebSocketHandler):
    """Send every message back."""

    async def receive(self, message):
        """Send it back."""
        await self.websocket.asend(message)


urlpatterns = [
    path("ready", django_site.ready),
    path("echo", echo),
    path("quiet-echo", quiet_echo),
    path("chat", chat),
    path("grouped", grouped),
    path("aecho", aecho),
    path("achat", achat),
    path("handler", Handler.as_view()),
    path("async-handler", AsyncHandler.as_view()),
]
application = get_wsgi_application()
