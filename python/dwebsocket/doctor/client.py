"""
A small WebSocket client for the doctor, on the standard library alone.

It sends exactly the given headers and keeps the whole answer, also when that is no WebSocket. The
peer is not trusted: whatever it sends, each call ends in time, in bounded memory, and with an
answer or an ``OSError``.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
import ssl
import struct
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from django.utils.encoding import iri_to_uri

from dwebsocket.doctor.stream import Stream

if TYPE_CHECKING:
    from collections.abc import Mapping

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_MAX_HEAD_BYTES = 64 * 1024
_MAX_BODY_BYTES = 256 * 1024
_MAX_CONTROL_BYTES = 125
_STATUS_LINE = re.compile(rb"HTTP/[0-9]\.[0-9] ([1-9][0-9]{2})(?: (.*))?")
_LENGTH = re.compile(r"[0-9]{1,9}", re.ASCII)
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
            ValueError: It is no such address; the message shows the form.
        """
        split = urlsplit(url)
        if split.scheme not in ("ws", "wss", "http", "https") or not split.hostname:
            raise ValueError(f"{url!r} is no address: write ws://host/path/ or wss://host/path/")
        secure = split.scheme in ("wss", "https")
        path = iri_to_uri(split.path or "/") + (f"?{iri_to_uri(split.query)}" * bool(split.query))
        return cls(secure, split.hostname, split.port or (443 if secure else 80), path)

    @property
    def netloc(self) -> str:
        """The value that a browser writes into Host."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.secure else 80) else f"{host}:{self.port}"

    @property
    def origin(self) -> str:
        """The origin of the site's own pages."""
        return f"{'https' if self.secure else 'http'}://{self.netloc}"


@dataclass
class Answer:
    """The server's answer to a handshake."""

    status: int
    reason: str
    headers: dict[str, str]
    body: bytes = b""
    #: The key was answered as RFC 6455 section 4.2.2 asks.
    accepted: bool = False
    connection: Connection | None = field(default=None, repr=False)


class BrokenProtocolError(ConnectionError):
    """The bytes behind the handshake are no WebSocket frames."""


class Connection:
    """An open WebSocket, as far as the doctor needs one."""

    def __init__(self, stream: Stream, early: bytes) -> None:
        self._stream = stream
        self._buffer = bytearray(early)
        # Bytes of a message that are still to come and are skipped: contents do not matter.
        self._skip = 0

    def frames(self, seconds: float) -> Counter[int]:
        """
        Sends nothing for some time, except answers to pings.

        Returns:
            The number of frames that came, by opcode.

        Raises:
            BrokenProtocolError: The bytes that came are no frame of a server.
            ConnectionError: The connection was cut without a close frame.
        """
        seen: Counter[int] = Counter()
        self._stream.expire_in(seconds)
        try:
            while CLOSE not in seen:
                # One pong answers all pings that came together (RFC 6455 section 5.5.3).
                if (ping := self._parse(seen)) is not None:
                    self._stream.write(_frame(PONG, ping))
                if CLOSE in seen:
                    break
                data = self._stream.read()
                if not data:
                    raise ConnectionResetError("the connection was cut without a close frame")
                self._buffer += data
        except TimeoutError:
            # The time of silence is over.
            pass
        return seen

    def close(self) -> None:
        """Sends a close frame, does not wait for the answer."""
        self._stream.close(_frame(CLOSE, struct.pack("!H", 1000)))

    def _parse(self, seen: Counter[int]) -> bytes | None:
        """Counts the frames that are here, and gives the payload of the last ping."""
        data, at, ping = self._buffer, 0, None
        while True:
            skipped = min(self._skip, len(data) - at)
            self._skip -= skipped
            at += skipped
            if len(data) - at < 2:
                break
            opcode, length, start = data[at] & 0x0F, data[at + 1], 2
            if data[at] & 0x70 or length & 0x80 or opcode not in (0, 1, 2, CLOSE, PING, PONG):
                raise BrokenProtocolError(f"a frame begins with {bytes(data[at : at + 2])!r}")
            if opcode >= CLOSE and (length > _MAX_CONTROL_BYTES or not data[at] & 0x80):
                raise BrokenProtocolError("a control frame is too long, or in pieces")
            if length > _MAX_CONTROL_BYTES:
                start = 4 if length == 126 else 10
                if len(data) - at < start:
                    break
                length = int.from_bytes(data[at + 2 : at + start], "big")
            if opcode < CLOSE:
                at += start
                self._skip = length
            elif len(data) - at < start + length:
                break
            else:
                if opcode == PING:
                    ping = bytes(data[at + start : at + start + length])
                at += start + length
            seen[opcode] += 1
        del data[:at]
        return ping


def _frame(opcode: int, payload: bytes) -> bytes:
    mask = os.urandom(4)
    masked = bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))
    return bytes((0x80 | opcode, 0x80 | len(payload))) + mask + masked


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
        headers: Additional headers; one of the usual name replaces the usual one.
        timeout: Seconds for all of it.
        context: Settings of TLS; the system's trusted certificates when ``None``.

    Raises:
        OSError: There was no answer in time: no server listens, TLS failed (``ssl.SSLError``), or
            the answer was not HTTP.
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
    if target.secure:
        context = context or ssl.create_default_context()
    stream = Stream.connect(target.host, target.port, timeout, context if target.secure else None)
    try:
        stream.write("\r\n".join([*lines, "", ""]).encode("latin-1"))
        answer, rest = _read_answer(stream)
        expected = base64.b64encode(hashlib.sha1(key + _GUID, usedforsecurity=False).digest())
        answer.accepted = (
            answer.status == 101 and answer.headers.get("sec-websocket-accept") == expected.decode()
        )
        if answer.accepted:
            answer.connection = Connection(stream, rest)
        else:
            answer.body = _read_body(stream, rest, answer.headers.get("content-length", ""))
            stream.close()
    except BaseException:
        stream.close()
        raise
    return answer


def _read_answer(stream: Stream) -> tuple[Answer, bytes]:
    data, end = bytearray(), -1
    while end < 0:
        more = stream.read()
        if not more or len(data) > _MAX_HEAD_BYTES:
            raise ConnectionError(f"no HTTP answer, but {bytes(data[:60])!r}")
        # The blank line after the head may be split over two reads.
        searched = max(0, len(data) - 3)
        data += more
        end = data.find(b"\r\n\r\n", searched)
    first, *lines = bytes(data[:end]).split(b"\r\n")
    found = _STATUS_LINE.fullmatch(first)
    if found is None:
        raise ConnectionError(f"no HTTP answer, but {first[:60]!r}")
    pairs = (line.decode("latin-1").partition(":") for line in lines)
    headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
    reason = (found[2] or b"").decode("latin-1")
    return Answer(int(found[1]), reason, headers), bytes(data[end + 4 :])


def _read_body(stream: Stream, begun: bytes, length: str) -> bytes:
    wanted = int(length) if _LENGTH.fullmatch(length) else _MAX_BODY_BYTES
    body = bytearray(begun)
    try:
        while len(body) < min(wanted, _MAX_BODY_BYTES) and (more := stream.read()):
            body += more
    except OSError:
        # Keep the part of the body that came.
        pass
    return bytes(body)
