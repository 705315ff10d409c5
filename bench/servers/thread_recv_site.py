"""
Subject thread-recv: the engine idea of the original package, written anew and kept small.

The server's thread stays with its WebSocket for as long as that lives and blocks in ``recv``;
frames are taken apart and put together in Python. Unmasking uses one exclusive-or of two large
integers, which is the fastest way plain Python has, so long messages fare better here than with a
loop over bytes.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import socket
import struct
import threading
from typing import TYPE_CHECKING

import django_site

django_site.configure(__name__)

from django.core.wsgi import get_wsgi_application  # noqa: E402
from django.http import HttpRequest, HttpResponse, HttpResponseBadRequest  # noqa: E402
from django.urls import path  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterator

GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
READ_AT_LEAST = 4096


class ThreadSocket:
    """A server's side of one WebSocket, served by the thread that calls it."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._buffer = bytearray()
        self._write_lock = threading.Lock()

    def __iter__(self) -> Iterator[tuple[int, bytes]]:
        """Yield (kind, payload) of each message until the peer closes."""
        kind, payload = TEXT, b""
        while True:
            try:
                fin, opcode, part = self._read_frame()
            except (EOFError, OSError):
                return
            if opcode == PING:
                self.send(part, PONG)
            elif opcode == CLOSE:
                self.send(part[:2], CLOSE)
                return
            elif opcode != PONG:
                kind, payload = (kind, payload + part) if opcode == CONTINUATION else (opcode, part)
                if fin:
                    yield kind, payload

    def send(self, payload: bytes, kind: int) -> None:
        """Send one unfragmented frame."""
        length = len(payload)
        if length < 126:
            header = struct.pack("!BB", 0x80 | kind, length)
        elif length < 1 << 16:
            header = struct.pack("!BBH", 0x80 | kind, 126, length)
        else:
            header = struct.pack("!BBQ", 0x80 | kind, 127, length)
        with self._write_lock:
            self._connection.sendall(header + payload)

    def _read_frame(self) -> tuple[bool, int, bytes]:
        first, second = self._read(2)
        length = second & 0x7F
        if length == 126:
            (length,) = struct.unpack("!H", self._read(2))
        elif length == 127:
            (length,) = struct.unpack("!Q", self._read(8))
        body = self._read(4 + length)
        return bool(first & 0x80), first & 0x0F, unmask(body[:4], body[4:])

    def _read(self, count: int) -> bytes:
        buffer = self._buffer
        while len(buffer) < count:
            chunk = self._connection.recv(max(READ_AT_LEAST, count - len(buffer)))
            if not chunk:
                raise EOFError
            buffer += chunk
        taken = bytes(buffer[:count])
        del buffer[:count]
        return taken


def unmask(key: bytes, payload: bytes) -> bytes:
    """Return ``payload`` with the four bytes of ``key`` laid over it again and again."""
    length = len(payload)
    mask = (key * (length // 4 + 1))[:length]
    number = int.from_bytes(payload, "little") ^ int.from_bytes(mask, "little")
    return number.to_bytes(length, "little")


def echo(request: HttpRequest) -> HttpResponse:
    """Send every message back, in the thread of the server."""
    key = request.META.get("HTTP_SEC_WEBSOCKET_KEY")
    if key is None:
        return HttpResponseBadRequest("WebSocket only")
    connection = request.META["gunicorn.socket"]
    digest = hashlib.sha1(f"{key}{GUID}".encode(), usedforsecurity=False).digest()
    connection.sendall(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + base64.b64encode(digest) + b"\r\n\r\n"
    )
    websocket = ThreadSocket(connection)
    for kind, message in websocket:
        websocket.send(message, kind)
    # The response that gunicorn now writes must not reach the client, which may be gone already.
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
    return HttpResponse()


urlpatterns = [path("ready", django_site.ready), path("echo", echo)]
application = get_wsgi_application()
