"""
How a client's connection changes hands without the server noticing.

The server keeps its descriptor, but what the descriptor means is exchanged for a dead end: it
reads as the end of the stream, and what the server still writes or closes never reaches the
client. Everything that may fail happens in :meth:`Takeover.prepare`, before the response is
decided; the exchange itself waits until the server iterates over the response, when all middleware
has run. Where the server encrypts, :mod:`dwebsocket.servers.tls` has another way to the same end.
"""

from __future__ import annotations

import _socket
import contextlib
import fcntl
import os
from typing import TYPE_CHECKING

from dwebsocket import native

if TYPE_CHECKING:
    from dwebsocket.servers.contract import Client


def dead_end() -> tuple[_socket.socket, _socket.socket]:
    """
    Gives a socket that leads nowhere, for the server, and the other end of it, for us.

    Raises:
        OSError: The process has no descriptors left.
    """
    # Not `socket.socketpair`, whose ends may be green.
    theirs, ours = _socket.socketpair()
    # The server reads the end of the stream at once: some wait for it before they close.
    ours.shutdown(_socket.SHUT_WR)
    ours.settimeout(0)
    return theirs, ours


class Takeover:
    """
    One client's way from the server to the engine.

    Used by one thread after another, never by two at once.
    """

    def __init__(self, client: Client, descriptor: int, ours: _socket.socket, dummy: int) -> None:
        self.client = client
        self._descriptor = descriptor
        self._sink = ours
        self._dummy = dummy

    @classmethod
    def prepare(cls, client: Client) -> Takeover:
        """
        Allocates every descriptor that the exchange needs.

        Raises:
            OSError: The process has none left, or the client has gone.
        """
        with contextlib.ExitStack() as undo:
            descriptor = fcntl.fcntl(client.descriptor, fcntl.F_DUPFD_CLOEXEC, 0)
            undo.callback(_close, descriptor)
            theirs, ours = dead_end()
            undo.pop_all()
        return cls(client, descriptor, ours, theirs.detach())

    def exchange(self) -> tuple[int, bytes]:
        """
        Puts the dead end into the server's hands.

        Returns:
            A descriptor of the client's connection, which the caller owns, and the bytes that the
            server had read beyond the request.
        """
        server_side = self.client.descriptor
        self.client.forget()
        os.set_blocking(self._dummy, os.get_blocking(server_side))
        os.dup2(self._dummy, server_side, inheritable=False)
        _close(self._dummy)
        self._dummy = -1
        # Only now: a reader that is read to its end stops at the dead end, not at the client.
        early = self.client.read_early()
        self.client.let_go()
        descriptor, self._descriptor = self._descriptor, -1
        return descriptor, early

    def finish(self) -> None:
        """Closes what is left, after the server has written to its dead end. May be repeated."""
        for name in ("_dummy", "_descriptor"):
            if (descriptor := getattr(self, name)) >= 0:
                setattr(self, name, -1)
                _close(descriptor)
        # Unread bytes would reset the server's end and look like a client that broke off.
        with contextlib.suppress(OSError):
            while self._sink.recv(4096):
                pass
        self._sink.close()

    def __del__(self) -> None:
        self.finish()


def _close(descriptor: int) -> None:
    # A green close happens when the hub finds the time.
    native.original("os", "close")(descriptor)
