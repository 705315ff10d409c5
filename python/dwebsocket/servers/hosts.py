"""
The server of this process, where connections can move to its processes and from them.

Some servers replace their processes, and a connection goes on in another one. Here is what it needs
to know of that one's server, of which it has no request.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from dwebsocket.servers.families import gunicorn

if TYPE_CHECKING:
    from dwebsocket.servers.contract import Client


class Host(NamedTuple):
    """
    The server of this process.

    Attributes:
        number: Of the process that has started this one, and others of the server; of this one
            where it is alone.
        client: A client of it, without a socket.
    """

    number: int
    client: Client


def find() -> Host | None:
    """Returns the server of this process; None where connections cannot move."""
    return None if (found := gunicorn.host()) is None else Host(*found)
