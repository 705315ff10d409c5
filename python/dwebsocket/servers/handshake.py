"""
How one judged handshake becomes a connection: the seam between WSGI and ASGI.

Under WSGI the client's socket is taken away from the server (:mod:`dwebsocket.servers.wsgi`); under
ASGI the server keeps it and speaks the protocol (:mod:`dwebsocket.servers.asgi`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from dwebsocket import _core
    from dwebsocket.conf import Options
    from dwebsocket.connection import Connection
    from dwebsocket.servers.contract import Depart, Exit

    Headers = list[tuple[str, str]]
    # The status, the reason, and the level of the log if it is not a warning.
    Refusal = tuple[int, str] | tuple[int, str, str]


class Handshake(Protocol):
    """One request's way to its connection. The methods are called in this order, each once."""

    #: The subprotocols that the client offers, once judged.
    offered: list[str]

    @property
    def concurrency(self) -> Literal["thread", "gevent", "eventlet"]:
        """As :attr:`dwebsocket.servers.contract.Client.concurrency`. Known once found."""

    @property
    def dies_of_sigterm(self) -> bool:
        """As :attr:`dwebsocket.servers.contract.Client.dies_of_sigterm`. Known once found."""

    @property
    def departure(self) -> Callable[[], Depart]:
        """As :attr:`dwebsocket.servers.contract.Client.departure`. Known once found."""

    @property
    def at_exit(self) -> Exit | None:
        """As :attr:`dwebsocket.servers.contract.Client.at_exit`. Known once found."""

    @property
    def size(self) -> int:
        """The bytes of its path, query and headers, as far as the server passes them on."""

    @property
    def body(self) -> tuple[bytes, ...]:
        """The chunks that the server gets when it iterates over the opened response."""

    @property
    def has_loop(self) -> bool:
        """Whether :meth:`open` is called in an event loop, in which async views shall run."""

    def judge(self) -> Refusal | None:
        """Judges what the client asks for; None when it is a WebSocket by all the rules."""

    def find(self) -> None:
        """
        Finds the client's connection.

        Raises:
            UnsupportedServer: It cannot be had.
        """

    def prepare(self) -> None:
        """
        Allocates what :meth:`open` needs.

        Raises:
            OSError: There are no more descriptors or threads.
        """

    def open(
        self, headers: Headers, subprotocol: str | None, options: Options, permit: _core.Permit
    ) -> Connection:
        """
        Accepts, with the response's ``headers``, and gives the open connection.

        Raises:
            OSError, ShuttingDown: It was lost on the way.
            ValueError: Headers that no response may have.
        """

    def call(self, function: Callable[[], object]) -> None:
        """Calls ``function`` where :meth:`open` may be called, from any thread of the request."""

    def discard(self) -> None:
        """
        Drops what the server writes from now on in place of the response. To be called when open.

        Raises:
            OSError: There are no more descriptors.
        """

    def finish(self) -> None:
        """Releases what is left of the request. May be repeated, and come without the others."""
