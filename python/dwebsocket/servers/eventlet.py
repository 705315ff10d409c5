"""eventlet's own server, ``eventlet.wsgi``, which puts its reader into the environ."""

from __future__ import annotations

from typing import Any

from dwebsocket.servers import tls
from dwebsocket.servers.contract import Client, Environ

_KEY = "eventlet.input"
_HANDLERS = "eventlet.set_idle"


def find(environ: Environ) -> Client | None:
    """Gives the client of a request that ``eventlet.wsgi`` serves."""
    body: Any = environ.get(_KEY)
    if body is None:
        return None
    sock = body.get_socket()
    return Client(
        server="eventlet",
        descriptor=sock.fileno(),
        read_early=body.rfile.read,
        let_go=lambda: _let_go(environ),
        dies_of_sigterm=True,
        concurrency="eventlet",
        tls=sock if tls.ends_here(sock) else None,
    )


def protocol(environ: Environ) -> str | None:
    """
    Gives the protocol that a client of ``eventlet.wsgi`` speaks; None for other servers.

    The environ always says HTTP/1.0. Only the server's handler knows better, and all that leads
    to it is a function that it gives to applications.
    """
    if _KEY not in environ:
        return None
    for cell in getattr(environ.get(_HANDLERS), "__closure__", None) or ():
        if version := getattr(cell.cell_contents, "request_version", None):
            return str(version)
    return "HTTP/1.1"


def _let_go(environ: Environ) -> None:
    # The view's request would keep the handler with its buffers and sockets.
    environ.pop(_KEY, None)
    environ.pop(_HANDLERS, None)
