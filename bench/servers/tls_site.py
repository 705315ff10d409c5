"""The views that bench/tls.py measures: an echo for rates, and an async view for memory."""

from __future__ import annotations

import os

import django_site

django_site.configure(__name__)

from django.core.wsgi import get_wsgi_application  # noqa: E402
from django.urls import path  # noqa: E402

from dwebsocket import require_websocket  # noqa: E402
from dwebsocket.servers import tls_pump  # noqa: E402

if os.environ.get("TLS_BENCH_PUMP") == "connection":

    def one_of_its_own() -> tls_pump.Pump:
        """Start a thread for this connection alone: the design that was not chosen."""
        own = tls_pump.Pump()
        own.start()
        return own

    tls_pump.current = one_of_its_own


@require_websocket
def echo(request):
    """Send every message back."""
    for message in request.websocket:
        request.websocket.send(message)


@require_websocket
async def hold(request):
    """Wait for the end, without a thread."""
    async for message in request.websocket:
        await request.websocket.asend(message)


urlpatterns = [path("ready", django_site.ready), path("echo", echo), path("hold", hold)]
application = get_wsgi_application()
