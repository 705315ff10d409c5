"""
Servers on the standard library's ``wsgiref``: Django's runserver and its live test server.

The request's body is a limited view of the one buffered reader on the client's socket.
"""

from __future__ import annotations

import io
import socket

from dwebsocket.compat.django import limited_readers
from dwebsocket.compat.socket import below_reader, has_tls
from dwebsocket.servers.contract import Client, Environ, ShutdownPlan


def find(environ: Environ) -> Client | None:
    """Returns the client of a request that runserver or the live test server serves."""
    if not str(environ.get("SERVER_SOFTWARE", "")).startswith("WSGIServer"):
        return None
    body = environ["wsgi.input"]
    # Its place depends on the Django version.
    readers = (body, *limited_readers(body))
    reader = next((each for each in readers if isinstance(each, io.BufferedReader)), None)
    if reader is None or not isinstance(sock := below_reader(reader), socket.socket):
        return None
    return Client(
        server="runserver",
        descriptor=sock.fileno(),
        read_early=reader.read,
        tls=sock if has_tls(sock) else None,
        dies_of_sigterm=True,
        shutdown_plan=lambda: _shutdown_plan,
    )


def _shutdown_plan(*, terminated: bool) -> ShutdownPlan:
    """Returns no time: a developer waits for the end, and few clients reconnect."""
    return ShutdownPlan(timeout_s=0)
