"""
The WSGI servers, a file for each family: how a request's socket is found, and how processes end.

Each file has a ``find``; :mod:`dwebsocket.servers.contract` describes its result.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dwebsocket.servers import in_environ
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
    from dwebsocket.servers.contract import Find

#: In the order in which they are tried.
FAMILIES: tuple[Find, ...] = (
    in_environ.find,
    gunicorn.find,
    uwsgi.find,
    gevent.find,
    eventlet.find,
    werkzeug.find,
    cheroot.find,
    waitress.find,
    wsgiref.find,
)
