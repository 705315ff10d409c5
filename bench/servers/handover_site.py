"""A handler whose connections survive a reload; each tells its client that it has moved."""

from __future__ import annotations

import django_site

django_site.configure(__name__, ["dwebsocket"])

from django.core.wsgi import get_wsgi_application  # noqa: E402
from django.urls import path  # noqa: E402

from dwebsocket import WebSocketHandler  # noqa: E402


class Echo(WebSocketHandler):
    """Send back what comes."""

    survives = True
    # Clients here do not answer pings.
    ping_interval = None

    def resumed(self):
        """Say that another process goes on."""
        self.websocket.send_text("moved")

    def receive(self, message):
        """Echo."""
        self.websocket.send_bytes(message)


class Grouped(Echo):
    """The same in a group that processes share."""

    groups = ("all",)


urlpatterns = [
    path("ready", django_site.ready),
    path("echo", Echo.as_view()),
    path("grouped", Grouped.as_view()),
]
application = get_wsgi_application()
