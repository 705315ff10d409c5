"""A relay to a server that cuts its connections when a client sends a certain command."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing_extensions import Self


class CuttingRelay:
    """
    Passes on what clients and a server send; use as a context manager.

    Args:
        server: The port of the server.

    Attributes:
        cuts_at: The command that is not passed on: all connections are cut when it comes. Each cut
            makes it empty.
    """

    def __init__(self, server: int) -> None:
        self.cuts_at = b""
        self._server = server
        self._open: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *exception: object) -> None:
        _end(self._listener)
        self.cut()

    def cut(self) -> None:
        """Cut all connections."""
        while self._open:
            _end(self._open.pop())

    def _accept(self) -> None:
        with contextlib.suppress(OSError), self._listener:
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._server))
                self._open += [client, server]
                for ends in ((client, server), (server, client)):
                    threading.Thread(target=self._pass_on, args=ends, daemon=True).start()

    def _pass_on(self, one: socket.socket, other: socket.socket) -> None:
        with contextlib.suppress(OSError), one:
            while data := one.recv(1 << 16):
                if self.cuts_at and self.cuts_at in data:
                    self.cuts_at = b""
                    self.cut()
                    break
                other.sendall(data)
            _end(other)


def _end(end: socket.socket) -> None:
    with contextlib.suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
