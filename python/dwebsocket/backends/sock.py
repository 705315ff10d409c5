"""The socket of a request whose WebSocket is yet to be opened, by the original's name."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from dwebsocket.servers import find_client

if TYPE_CHECKING:
    from django.http import HttpRequest


class SocketWarp:
    """
    The client's socket as the server has it.

    The server is asked only when the socket is used, so an object can be made under any server. It
    is meant to be passed to a protocol. Once the WebSocket is open the descriptor refers to a dead
    end: it reads as the end of the stream, and bytes that are sent are lost. Any thread may call
    it.
    """

    def __init__(self, request: HttpRequest) -> None:
        """Begins with a request of a WSGI server."""
        self.request = request
        self.closed = False

    def fileno(self) -> int:
        """
        Returns the descriptor, which stays the server's.

        Raises:
            UnsupportedServer: The server does not give it away.
        """
        return find_client(self.request.META).descriptor

    def recv(self, bufsize: int) -> bytes:
        """
        Receives up to ``bufsize`` bytes, past the server; none after :meth:`close`.

        Raises:
            OSError: The socket fails.
            UnsupportedServer: The server does not give it away.
        """
        return b"" if self.closed else os.read(self.fileno(), bufsize)

    def send(self, body: bytes) -> int:
        """
        Sends all of ``body``, past the server; returns its length. Drops it after :meth:`close`.

        Raises:
            OSError, UnsupportedServer: As :meth:`recv`.
        """
        rest = memoryview(body)
        while rest and not self.closed:
            rest = rest[os.write(self.fileno(), rest) :]
        return len(body)

    def sendall(self, body: bytes) -> None:
        """
        Sends all of ``body``, as :meth:`send`, and returns nothing.

        Raises:
            OSError, UnsupportedServer: As :meth:`recv`.
        """
        self.send(body)

    def close(self) -> None:
        """Stops receiving and sending here; the descriptor stays open, the server closes it."""
        self.closed = True
