"""
The takeover of a client's connection by the engine, transparent to the server.

The server keeps its descriptor, but ``dup2`` makes it refer to a placeholder: it reads as the end
of the stream, and the server's later writes and its close never reach the client. Every step that
may fail happens as it is made, before the response is decided; the exchange itself is
made when the server iterates over the response, after all middleware has run. The engine does both
(:class:`dwebsocket._core.Takeover`), by system calls that keep the GIL and that gevent and eventlet
do not patch. Where the server encrypts, :mod:`dwebsocket.servers.tls` does the same in another way.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dwebsocket import _core

if TYPE_CHECKING:
    from dwebsocket.servers.contract import Client


class Takeover:
    """
    The takeover of one client's connection by the engine.

    Used by one thread after another, never by two at once.

    Raises:
        OSError: The process has no descriptor left, or the client has gone.
    """

    __slots__ = ("_client", "_exchange", "discard", "finish")

    def __init__(self, client: Client) -> None:
        """Allocates every descriptor that the exchange needs."""
        self._client = client
        self._exchange = _core.Takeover(client.descriptor)
        #: Drops all that the server writes to its placeholder from now on, however much it is.
        self.discard = self._exchange.discard
        #: Closes what is left, after the server has written to its placeholder. May be repeated.
        #: Happens by itself when the last reference to this is gone.
        self.finish = self._exchange.finish

    def exchange(self) -> tuple[int, bytes]:
        """
        Puts the placeholder in the place of the server's connection.

        Returns:
            A descriptor of the client's connection, which the caller owns, and the bytes that the
            server had read beyond the request.
        """
        client = self._client
        client.forget()
        self._exchange.put_placeholder(client.descriptor)
        # After the exchange: a reader that is read to its end then stops at the placeholder, and
        # does not read on from the client.
        early = client.read_early()
        client.let_go()
        descriptor = self._exchange.take_client()
        assert descriptor is not None
        return descriptor, early
