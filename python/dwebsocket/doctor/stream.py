"""Bytes to and from a peer that may delay on purpose: all calls end at one deadline."""

from __future__ import annotations

import contextlib
import socket
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import ssl

_CHUNK_BYTES = 65536
# Time for the last bytes in `Stream.close`.
_CLOSE_S = 1.0


class Stream:
    """
    A connected socket and its deadline. For one thread.

    A socket's own timeout starts anew with each call: a peer that sends one byte each second would
    keep a reader waiting for ever.
    """

    def __init__(self, sock: socket.socket, seconds: float) -> None:
        self._sock = sock
        self.expire_in(seconds)

    @classmethod
    def connect(
        cls, host: str, port: int, seconds: float, context: ssl.SSLContext | None = None
    ) -> Stream:
        """
        Connects to the first address that answers, with TLS if there is a context for it.

        Raises:
            OSError: None does within ``seconds``, or TLS fails (``ssl.SSLError``).
        """
        deadline = time.monotonic() + seconds
        problem = OSError(f"there is no address for {host}")
        for family, kind, protocol, _, address in socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM
        ):
            sock = socket.socket(family, kind, protocol)
            try:
                sock.settimeout(_left(deadline))
                sock.connect(address)
                break
            except OSError as error:
                sock.close()
                problem = error
        else:
            raise problem
        try:
            if context is not None:
                sock.settimeout(_left(deadline))
                sock = context.wrap_socket(sock, server_hostname=host)
            return cls(sock, _left(deadline))
        except BaseException:
            sock.close()
            raise

    def expire_in(self, seconds: float) -> None:
        """Sets the deadline anew."""
        self._deadline = time.monotonic() + seconds

    def read(self) -> bytes:
        """
        Gives the bytes that came; empty at the end of the stream.

        Raises:
            TimeoutError: The deadline has passed.
        """
        self._sock.settimeout(_left(self._deadline))
        return self._sock.recv(_CHUNK_BYTES)

    def write(self, data: bytes) -> None:
        """
        Sends all of it.

        Raises:
            TimeoutError: The deadline has passed.
        """
        self._sock.settimeout(_left(self._deadline))
        self._sock.sendall(data)

    def close(self, last: bytes = b"") -> None:
        """Sends the last bytes if the peer takes them, and closes the socket."""
        with contextlib.suppress(OSError):
            if last:
                self.expire_in(_CLOSE_S)
                self.write(last)
        self._sock.close()


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError("timed out")
    return left
