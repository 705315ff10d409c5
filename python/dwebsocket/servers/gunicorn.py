"""
gunicorn, workers ``sync``, ``gthread``, ``gevent`` and ``eventlet``, versions 20 to 27.

``gevent_pywsgi`` is in :mod:`dwebsocket.servers.gevent`; ``eventlet`` ended with version 25.

It puts the client's socket into the environ. Bytes behind the request stay in two buffers: that
of the request's body, and that of the parser below it.
"""

from __future__ import annotations

from typing import Any

from dwebsocket.servers import green, tls
from dwebsocket.servers.contract import Client, Environ, Unsupported

_KEY = "gunicorn.socket"


def find(environ: Environ) -> Client | None:
    """Gives the client of a request that gunicorn serves."""
    sock = environ.get(_KEY)
    if sock is None:
        return None
    if _is_stream(environ):
        raise Unsupported(
            "gunicorn serves this request as one of many HTTP/2 streams of one connection, which "
            "cannot be taken over for one of them: start it with --http-protocols h1 and "
            "--http2-cleartext off, and let a proxy such as nginx speak HTTP/2 to the clients"
        )
    body = environ["wsgi.input"]
    if not (hasattr(body, "buf") and hasattr(body, "reader")):
        # Now, not when it is too late: bytes that the client sent early would be lost.
        raise Unsupported(
            f"wsgi.input is a {type(body).__name__} and not gunicorn's own here, perhaps wrapped "
            "by a WSGI middleware: leave that out, or its work to a Django middleware"
        )
    return Client(
        server="gunicorn",
        descriptor=sock.fileno(),
        read_early=lambda: _buffered(body),
        let_go=lambda: _forget(environ),
        tls=sock if tls.ends_here(sock) else None,
        concurrency=green.kind_of(sock),
    )


def _is_stream(environ: Environ) -> bool:
    version = str(environ.get("SERVER_PROTOCOL", ""))
    return version.startswith(("HTTP/2", "HTTP/3")) or any(
        name.startswith("gunicorn.http2.") for name in environ
    )


def _buffered(body: Any) -> bytes:
    early = body.buf.getvalue()
    unreader = getattr(body.reader, "unreader", None)
    if unreader is not None:
        early += unreader.buf.getvalue()
    return bytes(early)


def _forget(environ: Environ) -> None:
    environ.pop(_KEY, None)
