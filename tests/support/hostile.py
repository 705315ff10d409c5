"""A server on loopback that sends hostile answers to HTTP requests."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import re
import socket
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Answers = Callable[[bytes], Iterator[bytes]]

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
# Clears the screen, moves the cursor, sets the title; the same with 8-bit controls; a line of ours.
ESCAPES = b"\x1b[2J\x1b[H\x1b]0;mine\x07\x9b2J\x85\rfine [handshake] all is well\x0b"


def accepting(request: bytes) -> bytes:
    """Give the 101 that answers a handshake."""
    (key,) = re.findall(rb"(?i)Sec-WebSocket-Key: (\S+)", request)
    accept = base64.b64encode(hashlib.sha1(key + GUID).digest())
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n"
    )


class Hostile:
    """
    A server on loopback; use as a context manager.

    Args:
        answers: The bytes that it sends for a request, in pieces.
        pause_s: Seconds between the pieces.
    """

    def __init__(self, answers: Answers, *, pause_s: float = 0) -> None:
        self.answers, self.pause_s = answers, pause_s
        self.requests: list[bytes] = []
        self.over = threading.Event()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.threads = [threading.Thread(target=self._listen, daemon=True)]

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return int(self.listener.getsockname()[1])

    def url(self, scheme: str = "ws") -> str:
        """Return the address of its only page."""
        return f"{scheme}://127.0.0.1:{self.port}/echo/"

    def __enter__(self) -> Hostile:  # noqa: PYI034
        self.threads[0].start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.over.set()
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for thread in self.threads:
            thread.join(60)
            assert not thread.is_alive()

    def _listen(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self.listener.accept()
                thread = threading.Thread(target=self._serve, args=(client,), daemon=True)
                self.threads.append(thread)
                thread.start()

    def _serve(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            client.settimeout(30)
            request = client.recv(65536)
            self.requests.append(request)
            for piece in self.answers(request):
                client.sendall(piece)
                if self.over.wait(self.pause_s) if self.pause_s else self.over.is_set():
                    return
