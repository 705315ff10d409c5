"""Subject original: dwebsocket 0.5.12, on the newest Django on which it runs."""

from __future__ import annotations

import django_site

django_site.configure(__name__)

from django.core.wsgi import get_wsgi_application  # noqa: E402
from django.urls import path  # noqa: E402

from dwebsocket.decorators import accept_websocket  # noqa: E402

members = []


@accept_websocket
def echo(request):
    """Send every message back."""
    for message in request.websocket:
        if message is None:
            break
        request.websocket.send(message)


@accept_websocket
def binary(request):
    """Send every message back as a binary one, for which `send` has no way."""
    for message in request.websocket:
        if message is None:
            break
        request.websocket.protocol.write(message, binary=True)


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


urlpatterns = [
    path("ready", django_site.ready),
    path("echo", echo),
    path("binary", binary),
    path("chat", chat),
]
application = get_wsgi_application()
