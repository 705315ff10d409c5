"""The part that all servers on green threads share."""

from __future__ import annotations

import dataclasses
import functools
from typing import TYPE_CHECKING

from dwebsocket.compat import unpatched
from dwebsocket.servers.families import gevent

if TYPE_CHECKING:
    from dwebsocket.servers.contract import Client, Concurrency


def kind_of(sock: object) -> Concurrency:
    """Returns the kind of threads of a server by the class of its sockets."""
    library = type(sock).__module__.partition(".")[0]
    if library == "gevent":
        return "gevent"
    return "eventlet" if library == "eventlet" else "thread"


def settle(client: Client) -> Client:
    """
    Returns ``client`` with the actual kind of threads of the process.

    Where the project has patched the standard library, a threaded server runs green threads, and
    calls must not block the system's thread.
    """
    kind = client.concurrency
    if kind == "thread":
        kind = unpatched.patched_by() or kind
    if kind == "gevent":
        forget = functools.partial(gevent.forget, client.descriptor)
        return dataclasses.replace(client, concurrency=kind, forget=forget)
    if kind == client.concurrency:
        return client
    # eventlet's hub forgets a descriptor as soon as no green thread waits for it.
    return dataclasses.replace(client, concurrency=kind)
