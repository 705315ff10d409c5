"""
How a handshake becomes a connection: the interface that hides WSGI and ASGI.

The client's socket is taken from the server (:mod:`dwebsocket.servers.wsgi`, and under ASGI
:mod:`dwebsocket.servers.asgi.native`), or an ASGI server keeps it and implements the protocol
(:mod:`dwebsocket.servers.asgi`).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from dwebsocket import _core
    from dwebsocket._core import Connection
    from dwebsocket.conf import Options
    from dwebsocket.servers.contract import Client

    # The status, the reason, and two that may be left out: the level of the log, a warning, and the
    # cause for counters, that of the status.
    Refusal = tuple[int, str] | tuple[int, str, str] | tuple[int, str, str, str]


# ``beat=20`` in the URL. One that is no such number is the application's own.
_BEAT = re.compile(r"(?:^|[&?])beat=([1-9]\d{1,2})(?=&|$)")
_MIN_BEAT_S, _MAX_BEAT_S = 10, 300


def begin_beat(connection: Connection, query: str) -> None:
    """
    Begins the heartbeat that the page asks for: ``dwebsocket.js`` does so by ``?beat=20``.

    Args:
        connection: It has just been opened.
        query: That of the handshake's URL.
    """
    if (found := _BEAT.search(query)) and _MIN_BEAT_S <= int(found[1]) <= _MAX_BEAT_S:
        connection.begin_beat(int(found[1]))


class Opening(NamedTuple):
    """
    What a connection opens with.

    Attributes:
        headers: Those of the response, beside the protocol's own.
        subprotocol: One that the client offers.
        options: Those of its view.
        permit: Its place.
        memberships: Groups that it is in from its first moment: each with a name, and the key of
            the member.
    """

    headers: list[tuple[str, str]]
    subprotocol: str | None
    options: Options
    permit: _core.Permit
    memberships: list[tuple[_core.Groups, str, bytes]]


class Handshake(Protocol):
    """The steps from one request to its connection. Each is called once, in this order."""

    #: The subprotocols that the client offers, once validated.
    offered: list[str]

    #: The client's server, once found.
    client: Client

    @property
    def size(self) -> int:
        """The bytes of its path, query and headers, as far as the server passes them on."""

    @property
    def body(self) -> tuple[bytes, ...]:
        """The chunks that the server gets when it iterates over the opened response."""

    @property
    def has_loop(self) -> bool:
        """Whether :meth:`open` is called in an event loop, in which async views also run."""

    def validate(self) -> Refusal | None:
        """Validates the request's headers; None when they are a valid opening handshake."""

    def find(self) -> None:
        """
        Finds the client's connection.

        Raises:
            UnsupportedServer: The server does not give it away.
        """

    def prepare(self) -> None:
        """
        Allocates what :meth:`open` needs.

        Raises:
            OSError: There are no more descriptors or threads.
        """

    def open(self, opening: Opening) -> Connection:
        """
        Accepts, and returns the open connection.

        The connection becomes a member of its groups before the client can know that it is open.

        Raises:
            OSError: The connection was lost meanwhile.
            ShuttingDown: The process ends.
            ValueError: Headers that no response may have.
        """

    def call(self, function: Callable[[], object]) -> None:
        """Calls ``function`` where :meth:`open` may be called, from any thread of the request."""

    def discard(self) -> None:
        """
        Drops the bytes that the server writes as its response from now on. To be called when open.

        Raises:
            OSError: There are no more descriptors.
        """

    def finish(self) -> None:
        """Releases what is left. May be repeated, and called without the other methods."""
