"""
gevent: its own server (``gevent.pywsgi``), and gunicorn's worker ``gevent_pywsgi`` on top of it.

The request's body keeps the one buffered reader on the client's socket.
"""

from __future__ import annotations

import contextlib
import os
from typing import Any

from dwebsocket.compat import unpatched
from dwebsocket.compat.gevent import reader_of
from dwebsocket.compat.socket import below_reader, has_tls
from dwebsocket.servers.contract import Client, Environ


def find(environ: Environ) -> Client | None:
    """Returns the client of a request that ``gevent.pywsgi`` serves."""
    if not str(environ.get("SERVER_SOFTWARE", "")).startswith("gevent/"):
        return None
    body: Any = environ["wsgi.input"]
    # With `Connection: Upgrade` the body is the reader itself.
    reader = reader_of(body)
    sock = below_reader(reader)
    if sock is None:
        return None
    under_gunicorn = "gunicorn.sock" in environ
    return Client(
        server="gunicorn" if under_gunicorn else "gevent.pywsgi",
        descriptor=sock.fileno(),
        read_early=reader.read,
        let_go=lambda: environ.pop("gunicorn.sock", None),
        dies_of_sigterm=not under_gunicorn,
        concurrency="gevent",
        tls=sock if has_tls(sock) else None,
    )


def forget(descriptor: int) -> None:
    """
    Makes this thread's hub stop watching ``descriptor``.

    gevent leaves a descriptor in its epoll set once it has watched it. epoll watches the open file
    description, of which the engine holds a duplicate, so it would go on watching the client.
    """
    from gevent import get_hub

    if (epolls := unpatched.epolls()) is None:
        # kqueue watches the number, and drops it as soon as that refers to another socket.
        return
    try:
        poller = os.dup(get_hub().loop.fileno())
    except (OSError, TypeError):
        # This loop polls without an epoll descriptor, so there is no set to remove it from.
        return
    # ENOENT: the descriptor was never watched. EINVAL: the poller is no epoll.
    with epolls.fromfd(poller) as epoll, contextlib.suppress(OSError):
        epoll.unregister(descriptor)
