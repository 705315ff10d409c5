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

    The server is asked when the socket is used, so there may be one under any server. It is meant
    to be handed to a protocol. Once the WebSocket is open it leads nowhere: it reads as the end of
    the stream, and what is sent is lost. Any thread may call it.
    """

    def __init__(self, request: HttpRequest) -> None:
        """Begins with a request of a WSGI server."""
        self.request = request
        self.closed = False

    def fileno(self) -> int:
        """
        Gives the descriptor, which stays the server's.

        Raises:
            UnsupportedServer: The server does not give it away.
        """
        return find_client(self.request.META).descriptor

    def recv(self, bufsize: int) -> bytes:
        """
        Receives up to ``bufsize`` bytes, past the server; none when it is closed.

        Raises:
            OSError, UnsupportedServer: It cannot.
        """
        return b"" if self.closed else os.read(self.fileno(), bufsize)

    def send(self, body: bytes) -> int:
        """Sends all of ``body``, past the server, and gives its length. Raises as :meth:`recv`."""
        rest = memoryview(body)
        while rest and not self.closed:
            rest = rest[os.write(self.fileno(), rest) :]
        return len(body)

    def sendall(self, body: bytes) -> None:
        """As :meth:`send`."""
        self.send(body)

    def close(self) -> None:
        """Stops receiving and sending here; the server closes what is its own."""
        self.closed = True
