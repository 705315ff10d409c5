"""
Subject floor: the least that gives a view on its own thread a WebSocket of gunicorn's.

The socket goes to the engine, and a parked thread calls the view with its request, in its context:
the same threads wake each other as often as with dwebsocket2. But no rule of the handshake is
checked, no setting read, no user or Origin looked at, nothing counted, refused or logged.
"""

from __future__ import annotations

import contextvars
import functools
import hashlib
import threading
from base64 import b64encode
from queue import SimpleQueue

import django_site

django_site.configure(__name__)

from django.core.wsgi import get_wsgi_application  # noqa: E402
from django.http import HttpResponse  # noqa: E402
from django.urls import path  # noqa: E402

from dwebsocket import _core  # noqa: E402

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
SETTINGS = _core.Settings(
    max_message_bytes=2**24,
    max_frame_bytes=None,
    max_fragments=80_000,
    messages_per_second=None,
    bytes_per_second=None,
    rate_timeout=None,
    ping_interval=25,
    ping_timeout=20,
    receive_buffer_bytes=2**20,
    send_buffer_bytes=2**20,
    send_timeout=10,
    close_timeout=2,
)
parked = []


def work(jobs):
    """Run one job after the other."""
    while True:
        job = jobs.get()
        job()
        # It holds the request.
        del job
        parked.append(jobs)


def start(job):
    """Run a job on a parked thread, or on a new one."""
    if parked:
        parked.pop().put(job)
        return
    jobs = SimpleQueue()
    jobs.put(job)
    threading.Thread(target=work, args=[jobs], daemon=True).start()


def echo(request):
    """Send every message back."""
    connection = request.websocket
    while (message := connection.take(None, text_as_bytes=True)) is not None:
        connection.send(message, binary=False, timeout=10)
    connection.close(1000, "")


class Opening(HttpResponse):
    """Takes the socket when the server has the response."""

    status_code = 101

    def __init__(self, request):
        """Keep the request."""
        super().__init__()
        self.request = request

    def __iter__(self):
        """Write the 101, hand the socket over and start the view."""
        request, environ = self.request, self.request.META
        key = environ["HTTP_SEC_WEBSOCKET_KEY"].encode()
        lines = [
            b"HTTP/1.1 101 Switching Protocols",
            b"Upgrade: websocket",
            b"Connection: Upgrade",
            b"Sec-WebSocket-Accept: " + b64encode(hashlib.sha1(key + GUID).digest()),
            *(f"{name}: {value}".encode() for name, value in self.items()),
        ]
        sock = environ.pop("gunicorn.socket")
        exchange = _core.Takeover(sock.fileno())
        exchange.put_placeholder(sock.fileno())
        descriptor = exchange.take_client()
        exchange.finish()
        # Only this closure leads to gunicorn's own response. Marked as sent, it is not written to
        # the placeholder.
        for cell in environ.pop("wsgi.early_hints").__closure__:
            if hasattr(response := cell.cell_contents, "force_close"):
                response.headers_sent = True
                response.force_close()
        head = b"\r\n".join([*lines, b"", b""])
        permit = _core.Permit.claim(None)
        request.websocket = _core.adopt(descriptor, b"", head, permit, SETTINGS)
        start(functools.partial(contextvars.copy_context().run, echo, request))
        return iter(())


urlpatterns = [path("ready", django_site.ready), path("echo", Opening)]
application = get_wsgi_application()
