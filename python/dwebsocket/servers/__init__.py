"""
How a request's client connection is obtained from its server.

Under WSGI its socket is taken from the server (:mod:`~dwebsocket.servers.handshake`):
:func:`find_client` tries each of the :mod:`~dwebsocket.servers.families`, and
:mod:`~dwebsocket.servers.takeover` takes the socket over, with :mod:`~dwebsocket.servers.tls` where
the server encrypts. ASGI servers: :mod:`~dwebsocket.servers.asgi`.
"""

from __future__ import annotations

import sys

from dwebsocket.compat.django import is_from_test_client
from dwebsocket.compat.eventlet import protocol
from dwebsocket.compat.system import NO_TAKEOVER, NOT_UNDER_WSGI
from dwebsocket.exceptions import UnsupportedServer
from dwebsocket.servers.contract import Client, Environ, Unsupported
from dwebsocket.servers.families import FAMILIES, green

_INSTEAD = "Use gunicorn, uWSGI, waitress or Django's runserver instead."

# Servers that are known not to give their clients' sockets away, by the modules they load.
_CLOSED = ("granian", "bjoern", "mod_wsgi", "meinheld")


def find_client(environ: Environ) -> Client:
    """
    Returns the client's connection of a WSGI request.

    Raises:
        UnsupportedServer: It is not available. The message names the server and an alternative.
    """
    for find in FAMILIES:
        try:
            client = find(environ)
        except Unsupported as unsupported:
            raise UnsupportedServer(f"No WebSocket on this server: {unsupported}.") from None
        if client is not None:
            return green.settle(client)
    if is_from_test_client(environ):
        raise UnsupportedServer(
            "No WebSocket in Django's own test client: use the one of dwebsocket.testing"
        )
    if NO_TAKEOVER:
        raise UnsupportedServer(NOT_UNDER_WSGI)
    raise UnsupportedServer(
        f"No WebSocket on this server: {_name(environ)} does not give its clients' connections "
        f"to the application. {_INSTEAD}"
    )


def protocol_of(environ: Environ) -> str:
    """Returns the protocol of a WSGI request as the client wrote it, such as ``"HTTP/1.1"``."""
    return protocol(environ) or str(environ.get("SERVER_PROTOCOL", ""))


def _name(environ: Environ) -> str:
    software = str(environ.get("SERVER_SOFTWARE") or "")
    for name in _CLOSED:
        if name in sys.modules and name not in software.lower():
            software = f"{name} ({software})" if software else name
    if not software and "wsgi.input" not in environ:
        software = "an ASGI server"
    return software or "this server"
