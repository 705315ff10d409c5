"""
A WebSocket client for the doctor: small, on the standard library, and curious.

It says exactly what it is told to and keeps what came back, also when that is no WebSocket at all.
"""

from __future__ import annotations

import base64
import hashlib
import os
import socket
import ssl
import struct
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Mapping

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_MAX_HEAD_BYTES = 64 * 1024
_MAX_BODY_BYTES = 256 * 1024
CLOSE, PING, PONG = 0x8, 0x9, 0xA


@dataclass(frozen=True)
class Target:
    """Where a site is, from its ``ws://`` or ``wss://`` (or ``http…``) address."""

    secure: bool
    host: str
    port: int
    path: str

    @classmethod
    def parse(cls, url: str) -> Target:
        """
        Reads an address.

        Raises:
            ValueError: It is none; the message says what it must be.
        """
        split = urlsplit(url)
        if split.scheme not in ("ws", "wss", "http", "https") or not split.hostname:
            raise ValueError(f"{url!r} is no address: write ws://host/path/ or wss://host/path/")
        secure = split.scheme in ("wss", "https")
        path = (split.path or "/") + (f"?{split.query}" if split.query else "")
        return cls(secure, split.hostname, split.port or (443 if secure else 80), path)

    @property
    def netloc(self) -> str:
        """What a browser writes into Host."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.secure else 80) else f"{host}:{self.port}"

    @property
    def origin(self) -> str:
        """The origin of the site's own pages."""
        return f"{'https' if self.secure else 'http'}://{self.netloc}"


@dataclass
class Answer:
    """What came back for a handshake."""

    status: int
    reason: str
    headers: dict[str, str]
    body: bytes = b""
    #: The key was answered as RFC 6455 section 4.2.2 asks.
    accepted: bool = False
    connection: Connection | None = field(default=None, repr=False)


class Connection:
    """An open WebSocket, as far as the doctor needs one."""

    def __init__(self, sock: socket.socket, early: bytes) -> None:
        self._sock = sock
        self._buffer = early

    def frames(self, seconds: float) -> list[int]:
        """
        Keeps silent for some time, but for answers to pings.

        Returns:
            The opcodes of the frames that came.

        Raises:
            ConnectionError: The connection was cut without a close frame.
        """
        seen: list[int] = []
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0 and CLOSE not in seen:
            while (frame := self._parse()) is not None:
                opcode, payload = frame
                seen.append(opcode)
                if opcode == PING:
                    self._send(PONG, payload)
            self._sock.settimeout(max(left, 0.001))
            try:
                data = self._sock.recv(65536)
            except TimeoutError:
                break
            if not data:
                if CLOSE in seen:
                    break
                raise ConnectionResetError("the connection was cut without a close frame")
            self._buffer += data
        while (frame := self._parse()) is not None:
            seen.append(frame[0])
        return seen

    def close(self) -> None:
        """Says goodbye, does not wait for the answer."""
        try:
            self._send(CLOSE, struct.pack("!H", 1000))
        except OSError:
            pass
        self._sock.close()

    def _send(self, opcode: int, payload: bytes) -> None:
        mask = os.urandom(4)
        masked = bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))
        self._sock.sendall(bytes((0x80 | opcode, 0x80 | len(payload))) + mask + masked)

    def _parse(self) -> tuple[int, bytes] | None:
        data = self._buffer
        if len(data) < 2:
            return None
        length, start = data[1] & 0x7F, 2
        if length == 126:
            length, start = int.from_bytes(data[2:4], "big"), 4
        elif length == 127:
            length, start = int.from_bytes(data[2:10], "big"), 10
        if len(data) < start + length:
            return None
        self._buffer = data[start + length :]
        return data[0] & 0x0F, data[start : start + length]


def shake_hands(
    target: Target,
    headers: Mapping[str, str],
    *,
    timeout: float,
    context: ssl.SSLContext | None = None,
) -> Answer:
    """
    Connects, sends an opening handshake and reads the answer, whatever it is.

    Args:
        target: Where to.
        headers: More headers, and others than usual by name.
        timeout: Seconds for each step.
        context: How to speak TLS; the system's own trust when ``None``.

    Raises:
        OSError: There was no answer: nobody listens, TLS failed (``ssl.SSLError``), or what came
            was not HTTP.
    """
    key = base64.b64encode(os.urandom(16))
    fields = {
        "Host": target.netloc,
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Key": key.decode(),
        "Sec-WebSocket-Version": "13",
        "Origin": target.origin,
        "User-Agent": "websocket_doctor",
        **headers,
    }
    lines = [f"GET {target.path} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items())]
    sock = socket.create_connection((target.host, target.port), timeout)
    try:
        if target.secure:
            context = context or ssl.create_default_context()
            sock = context.wrap_socket(sock, server_hostname=target.host)
        sock.sendall("\r\n".join([*lines, "", ""]).encode("latin-1"))
        answer, rest = _read_answer(sock)
        expected = base64.b64encode(hashlib.sha1(key + _GUID, usedforsecurity=False).digest())
        answer.accepted = (
            answer.status == 101 and answer.headers.get("sec-websocket-accept") == expected.decode()
        )
        if answer.accepted:
            answer.connection = Connection(sock, rest)
        else:
            answer.body = _read_body(sock, rest, answer.headers.get("content-length"))
            sock.close()
    except BaseException:
        sock.close()
        raise
    return answer


def _read_answer(sock: socket.socket) -> tuple[Answer, bytes]:
    data = b""
    while b"\r\n\r\n" not in data:
        more = sock.recv(65536)
        if not more or len(data) > _MAX_HEAD_BYTES:
            raise ConnectionError(f"no HTTP answer, but {data[:60]!r}")
        data += more
    head, _, rest = data.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    version, _, status = first.partition(" ")
    number, _, reason = status.partition(" ")
    if not version.startswith("HTTP/") or not number.isdigit():
        raise ConnectionError(f"no HTTP answer, but {first[:60]!r}")
    pairs = (line.partition(":") for line in lines)
    headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
    return Answer(int(number), reason, headers), rest


def _read_body(sock: socket.socket, body: bytes, length: str | None) -> bytes:
    wanted = int(length) if length is not None and length.isdigit() else _MAX_BODY_BYTES
    while len(body) < min(wanted, _MAX_BODY_BYTES):
        try:
            more = sock.recv(65536)
        except OSError:
            break
        if not more:
            break
        body += more
    return body
