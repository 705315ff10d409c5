"""
The WSGI servers, a file for each family: how a request's socket is found, and how processes end.

Each file has a ``find``; :mod:`dwebsocket.servers.contract` describes its result.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dwebsocket.compat.system import NO_TAKEOVER
from dwebsocket.servers.contract import Client
from dwebsocket.servers.families import (
    cheroot,
    eventlet,
    gevent,
    gunicorn,
    uwsgi,
    waitress,
    werkzeug,
    wsgiref,
)

if TYPE_CHECKING:
    from dwebsocket.servers.contract import Environ, Find

#: Where the test kit, which is server and client at once, puts the client. No client can forge it:
#: a client's headers are in the environ under other names.
KEY = "dwebsocket.client"


def _find_in_environ(environ: Environ) -> Client | None:
    client = environ.get(KEY)
    return client if isinstance(client, Client) else None


_SERVERS: tuple[Find, ...] = (
    gunicorn.find,
    uwsgi.find,
    gevent.find,
    eventlet.find,
    werkzeug.find,
    cheroot.find,
    waitress.find,
    wsgiref.find,
)
#: In the order in which they are tried. The first is for the test kit alone.
FAMILIES: tuple[Find, ...] = (_find_in_environ, *(() if NO_TAKEOVER else _SERVERS))
