"""Subjects dwebsocket2 and dwebsocket2-async: the views as the README shows them."""

from __future__ import annotations

import django_site

django_site.configure(__name__)

from django.core.wsgi import get_wsgi_application  # noqa: E402
from django.urls import path  # noqa: E402

from dwebsocket import accept_websocket  # noqa: E402


@accept_websocket
def echo(request):
    """Send every message back."""
    for message in request.websocket:
        request.websocket.send(message)


@accept_websocket
async def aecho(request):
    """Send every message back."""
    async for message in request.websocket:
        await request.websocket.asend(message)


urlpatterns = [path("ready", django_site.ready), path("echo", echo), path("aecho", aecho)]
application = get_wsgi_application()
