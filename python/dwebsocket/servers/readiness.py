"""A descriptor that is readable while an ASGI connection has something to take."""

from __future__ import annotations

import socket


class Readiness:
    """
    One such descriptor, for code that selects on a connection. Its owner must serialise the calls.

    The engine has its own (``src/engine/resources/readiness.rs``).
    """

    def __init__(self) -> None:
        self._read_end, self._write_end = socket.socketpair()
        self._is_ready = False

    def fileno(self) -> int:
        """Gives the descriptor, to select on only: nothing may read from it."""
        return self._read_end.fileno()

    def set(self, *, is_ready: bool) -> None:
        """Makes the descriptor readable, or not."""
        if self._is_ready == is_ready:
            return
        self._is_ready = is_ready
        # The socket holds one byte or none, so neither call blocks.
        if is_ready:
            self._write_end.send(b"\0")
        else:
            self._read_end.recv(1)

    def close(self) -> None:
        """Closes the descriptor."""
        self._read_end.close()
        self._write_end.close()
