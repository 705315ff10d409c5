"""
Werkzeug's development server: ``run_simple``, and ``runserver_plus`` of django-extensions.

It puts the client's socket into the environ; the request's body is the buffered reader above it.
"""

from __future__ import annotations

import io

from dwebsocket.compat.socket import has_tls
from dwebsocket.compat.werkzeug import reader_of
from dwebsocket.servers.contract import Client, Environ

_KEY = "werkzeug.socket"


def find(environ: Environ) -> Client | None:
    """Returns the client of a request that Werkzeug serves."""
    sock = environ.get(_KEY)
    if sock is None:
        return None
    body = environ["wsgi.input"]
    # A body in chunks has a reader of its own above the socket's.
    reader = reader_of(body)
    if not isinstance(reader, io.BufferedReader):
        return None
    return Client(
        server="Werkzeug",
        descriptor=sock.fileno(),
        read_early=reader.read,
        let_go=lambda: environ.pop(_KEY, None),
        tls=sock if has_tls(sock) else None,
        # Only its reloader handles the signal; whether that runs is checked later.
        dies_of_sigterm=True,
    )
