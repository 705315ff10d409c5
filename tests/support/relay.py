"""A relay to a server, which holds answers back, cuts connections or swallows what they send."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing_extensions import Self


class Relay:
    """
    Passes bytes on between clients and a server; use as a context manager.

    Args:
        server: The port of the server.

    Attributes:
        port: The port for clients.
        is_open: The server's answers are passed on while it is set.
        cuts_at: The command that is not passed on: all connections are cut when it comes. Each cut
            makes it empty.
    """

    def __init__(self, server: int) -> None:
        self.is_open = threading.Event()
        self.is_open.set()
        self.cuts_at = b""
        self._server = server
        self._open: list[socket.socket] = []
        self._swallowed: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.is_open.set()
        _end(self._listener)
        self.cut()

    def cut(self) -> None:
        """Cut all connections, but none that comes meanwhile: a client may be back at once."""
        ends, self._open = self._open, []
        for end in ends:
            _end(end)

    def swallow(self) -> None:
        """Pass on nothing more of the present connections, and close none."""
        self._swallowed.update(self._open)

    def _accept(self) -> None:
        with contextlib.suppress(OSError), self._listener:
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._server))
                self._open += [client, server]
                for way in (self._ask, self._answer):
                    threading.Thread(target=way, args=(client, server), daemon=True).start()

    def _ask(self, client: socket.socket, server: socket.socket) -> None:
        with contextlib.suppress(OSError), client:
            while data := client.recv(1 << 16):
                if client in self._swallowed:
                    continue
                if self.cuts_at and self.cuts_at in data:
                    self.cuts_at = b""
                    self.cut()
                    break
                server.sendall(data)
            if client not in self._swallowed:
                _end(server)

    def _answer(self, client: socket.socket, server: socket.socket) -> None:
        with contextlib.suppress(OSError), server:
            while data := server.recv(1 << 16):
                if server in self._swallowed:
                    continue
                self.is_open.wait()
                client.sendall(data)
            if server not in self._swallowed:
                _end(client)


def _end(end: socket.socket) -> None:
    with contextlib.suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
