"""
The server of this process, where connections can move to its processes and from them.

Some servers replace their processes, and a connection goes on in another one. Here is what it needs
to know of that one's server, of which it has no request.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from dwebsocket.compat.system import renew_at_fork
from dwebsocket.servers.families import gunicorn, uwsgi

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Mapping

    from dwebsocket._core import Connection
    from dwebsocket.servers.contract import Client


class Loop(NamedTuple):
    """
    The event loop of an ASGI server.

    Attributes:
        loop: It runs on the main thread.
        keep: Has the end of the server be that of a connection, too; to be called in the loop. None
            where connections end with the process.
        state: That of the server's lifespan.
    """

    loop: asyncio.AbstractEventLoop
    keep: Callable[[Connection], object] | None
    state: Mapping[str, Any]


class Host(NamedTuple):
    """
    The server of this process.

    Attributes:
        number: Of the process that has started this one, and others of the server; of this one
            where it is alone.
        client: A client of it, without a socket.
        asgi: Of an ASGI server.
    """

    number: int
    client: Client
    asgi: Loop | None = None


_of_loop: Host | None = None


def note(host: Host | None) -> None:
    """Notes the ASGI server that this process serves with; None when it stops."""
    global _of_loop
    _of_loop = host


def forget(keep: Callable[[Connection], object]) -> None:
    """Notes that a server stops beside others of this process: by its ``Loop.keep``."""
    if _of_loop is not None and _of_loop.asgi is not None and _of_loop.asgi.keep == keep:
        note(None)


def is_noted() -> bool:
    """Whether :func:`note` has told of a server."""
    return _of_loop is not None


def find() -> Host | None:
    """Returns the server of this process; None where connections cannot move."""
    if _of_loop is not None:
        return _of_loop
    found = gunicorn.host() or uwsgi.host()
    return None if found is None else Host(*found)


renew_at_fork(globals(), _of_loop=lambda: None)
