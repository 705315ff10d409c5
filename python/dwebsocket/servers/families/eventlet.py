"""eventlet's own server, ``eventlet.wsgi``, which puts its reader into the environ."""

from __future__ import annotations

from typing import Any

from dwebsocket.compat.eventlet import BODY, HANDLERS, reader_of
from dwebsocket.compat.socket import has_tls
from dwebsocket.servers.contract import Client, Environ


def find(environ: Environ) -> Client | None:
    """Returns the client of a request that ``eventlet.wsgi`` serves."""
    body: Any = environ.get(BODY)
    if body is None:
        return None
    sock = body.get_socket()
    return Client(
        server="eventlet",
        descriptor=sock.fileno(),
        read_early=reader_of(body).read,
        let_go=lambda: _let_go(environ),
        dies_of_sigterm=True,
        concurrency="eventlet",
        tls=sock if has_tls(sock) else None,
    )


def _let_go(environ: Environ) -> None:
    # Otherwise the view's request would keep the handler with its buffers and sockets.
    environ.pop(BODY, None)
    environ.pop(HANDLERS, None)
