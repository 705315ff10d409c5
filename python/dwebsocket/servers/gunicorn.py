"""
gunicorn, workers ``sync`` and ``gthread``, versions 20 to 27.

It puts the client's socket into the environ. Bytes behind the request stay in two buffers: that
of the request's body, and that of the parser below it.
"""

from __future__ import annotations

from typing import Any

from dwebsocket.servers import tls
from dwebsocket.servers.contract import Client, Environ, Unsupported

_KEY = "gunicorn.socket"


def find(environ: Environ) -> Client | None:
    """Gives the client of a request that gunicorn serves."""
    sock = environ.get(_KEY)
    if sock is None:
        return None
    if type(sock).__module__.split(".")[0] in ("gevent", "eventlet"):
        raise Unsupported(
            "gunicorn's gevent and eventlet workers are not supported yet: "
            "use --worker-class gthread, where an open WebSocket needs no worker thread"
        )
    body = environ["wsgi.input"]
    return Client(
        server="gunicorn",
        descriptor=sock.fileno(),
        read_early=lambda: _buffered(body),
        let_go=lambda: _forget(environ),
        tls=sock if tls.ends_here(sock) else None,
    )


def _buffered(body: Any) -> bytes:
    early = body.buf.getvalue()
    unreader = getattr(body.reader, "unreader", None)
    if unreader is not None:
        early += unreader.buf.getvalue()
    return bytes(early)


def _forget(environ: Environ) -> None:
    environ.pop(_KEY, None)
