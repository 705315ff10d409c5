"""
A WebSocket peer on a bare socket, with full control over every bit.

It can break every rule of RFC 6455 on purpose, and it is strict about what it reads: bytes after
the 101 that are not whole, well-formed server frames are a failure.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import json
import os
import select
import socket
import ssl
import struct
from typing import TYPE_CHECKING, Protocol

from support.certificates import TlsAddress, client_context

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from typing_extensions import Self

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA

TIMEOUT_S = 20.0

Address = tuple[str, int] | str


class Listening(Protocol):
    """The attributes of a server that a peer needs."""

    address: Address | TlsAddress
    #: As the Host header has it.
    host: str


class Response:
    """An HTTP response, read whole."""

    def __init__(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body

    def __repr__(self) -> str:
        return f"<Response {self.status} {self.headers} {self.body[:300]!r}>"

    def header(self, name: str) -> str | None:
        """Return the first header of that name, or None."""
        return next((v for k, v in self.headers if k.lower() == name.lower()), None)

    def header_all(self, name: str) -> list[str]:
        """Return all values of a header, in order."""
        return [v for k, v in self.headers if k.lower() == name.lower()]

    def cookies(self) -> dict[str, str]:
        """Return the cookies that it sets."""
        given = [each.split(";")[0].split("=", 1) for each in self.header_all("Set-Cookie")]
        return dict(given)

    def json(self) -> dict:
        """Decode the body as JSON."""
        return json.loads(self.body)


@dataclasses.dataclass(frozen=True)
class Frame:
    """A frame as it was on the wire."""

    opcode: int
    payload: bytes = b""
    fin: bool = True
    rsv: int = 0

    @property
    def code(self) -> int | None:
        """The code of a close frame; None when it carries none."""
        assert self.opcode == CLOSE, self
        return struct.unpack("!H", self.payload[:2])[0] if self.payload else None

    @property
    def reason(self) -> str:
        """The reason of a close frame."""
        return self.payload[2:].decode()


@dataclasses.dataclass(frozen=True)
class Ending:
    """Everything read up to the end of the connection."""

    frames: list[Frame]
    reset: bool

    @property
    def code(self) -> int | None:
        """
        The code of the only close frame.

        The connection must have ended with EOF and the close frame must be the last frame.
        """
        assert not self.reset, f"connection reset after {self.frames}"
        closes = [frame for frame in self.frames if frame.opcode == CLOSE]
        assert len(closes) == 1, f"expected one close frame: {self.frames}"
        assert self.frames[-1] is closes[0], f"frames after the close frame: {self.frames}"
        return closes[0].code

    @property
    def messages(self) -> list[bytes]:
        """Payloads of the data frames."""
        return [frame.payload for frame in self.frames if frame.opcode in (TEXT, BINARY)]


def build_frame(
    opcode: int,
    payload: bytes = b"",
    *,
    fin: bool = True,
    rsv: int = 0,
    mask: bytes | None = b"\x37\xfa\x21\x3d",
    length: int | None = None,
    form: int | None = None,
) -> bytes:
    """
    Build a client frame, right or wrong.

    Args:
        opcode: Four bits, any value.
        payload: The bytes behind the header (masked with `mask`).
        fin: The FIN bit.
        rsv: The three reserved bits as a number, RSV1 = 4.
        mask: Four bytes; None leaves the frame unmasked.
        length: The length that the header claims; that of `payload` when None.
        form: 7, 16 or 64: how the length is written; the shortest when None.
    """
    claimed = len(payload) if length is None else length
    if form is None:
        form = 7 if claimed < 126 else 16 if claimed < 65536 else 64
    head = bytes([(0x80 if fin else 0) | rsv << 4 | opcode])
    masked = 0x80 if mask is not None else 0
    if form == 7:
        head += bytes([masked | claimed])
    elif form == 16:
        head += struct.pack("!BH", masked | 126, claimed)
    else:
        head += struct.pack("!BQ", masked | 127, claimed)
    if mask is None:
        return head + payload
    return head + mask + apply_mask(payload, mask)


def apply_mask(payload: bytes, mask: bytes) -> bytes:
    """Mask or unmask."""
    if not payload:
        return b""
    whole = (mask * (len(payload) // 4 + 1))[: len(payload)]
    mixed = int.from_bytes(payload, "big") ^ int.from_bytes(whole, "big")
    return mixed.to_bytes(len(payload), "big")


def close_payload(code: int, reason: str = "") -> bytes:
    """Build the payload of a close frame."""
    return struct.pack("!H", code) + reason.encode()


def handshake_request(
    path: str,
    host: str = "localhost",
    *,
    method: str = "GET",
    http: str = "HTTP/1.1",
    headers: Mapping[str, str | None] | None = None,
    extra: Iterable[tuple[str, str]] = (),
) -> bytes:
    """
    Build the bytes of an opening handshake.

    `headers` replaces headers of a correct handshake by name; None leaves one out. `extra` adds
    lines as they are.
    """
    fields: dict[str, str | None] = {
        "Host": host,
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Key": base64.b64encode(os.urandom(16)).decode(),
        "Sec-WebSocket-Version": "13",
        **(headers or {}),
    }
    lines = [f"{method} {path} {http}"]
    lines += [f"{name}: {value}" for name, value in fields.items() if value is not None]
    lines += [f"{name}: {value}" for name, value in extra]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


class RawPeer:
    """One connection to a server."""

    # The reserved bits that mean something, as in `Frame`.
    allowed_rsv = 0
    # Messages of this content are dropped, as if they had not come.
    ignored: bytes | None = None

    def __init__(
        self,
        address: Address,
        *,
        receive_buffer: int | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        family = socket.AF_INET if isinstance(address, tuple) else socket.AF_UNIX
        self.sock = socket.socket(family)
        self.sock.settimeout(TIMEOUT_S)
        if receive_buffer is not None:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        try:
            self.sock.connect(address)
        except BaseException:
            self.sock.close()
            raise
        if family == socket.AF_INET:
            self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if isinstance(address, TlsAddress):
            self.sock = (tls or client_context()).wrap_socket(
                self.sock, server_hostname=address[0], suppress_ragged_eofs=False
            )
        self.buffer = bytearray()
        self.eof = False
        self.reset_seen = False
        self.response: Response | None = None

    @classmethod
    def open(
        cls,
        server: Listening,
        path: str,
        *,
        early: bytes = b"",
        headers: Mapping[str, str | None] | None = None,
        receive_buffer: int | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> RawPeer:
        """Connect and shake hands; `early` bytes go out in the same write as the request."""
        peer = cls(server.address, receive_buffer=receive_buffer, tls=tls)
        try:
            peer.send(handshake_request(path, server.host, headers=headers) + early)
            response = peer.read_response()
            assert response.status == 101, response
        except BaseException:
            peer.close()
            raise
        return peer

    @classmethod
    @contextlib.contextmanager
    def open_many(
        cls, server: Listening, path: str, count: int, *, at_once: int = 1
    ) -> Iterator[list[RawPeer]]:
        """
        Hold `count` open connections; all are closed at the end, in whatever state.

        `at_once` handshakes are sent before the first answer is read.
        """
        with contextlib.ExitStack() as stack:
            peers: list[RawPeer] = []
            while len(peers) < count:
                batch = [
                    stack.enter_context(cls(server.address))
                    for _ in range(min(at_once, count - len(peers)))
                ]
                for peer in batch:
                    peer.send(handshake_request(path, server.host))
                for peer in batch:
                    response = peer.read_response()
                    assert response.status == 101, response
                peers += batch
            yield peers

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    # --- writing -------------------------------------------------------------------------------

    def send(self, data: bytes) -> None:
        """Write raw bytes."""
        self.sock.sendall(data)

    def send_until_refused(self, pieces: Iterable[bytes]) -> None:
        """Write one piece after the other; the server may hang up before the last one."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            for piece in pieces:
                self.send(piece)

    def send_frame(self, opcode: int, payload: bytes = b"", **bits: object) -> None:
        """Write one frame; see `build_frame`."""
        self.send(build_frame(opcode, payload, **bits))  # type: ignore[arg-type]

    def send_text(self, text: str) -> None:
        """Write a text message in one frame."""
        self.send_frame(TEXT, text.encode())

    def send_close(self, code: int | None = 1000, reason: str = "") -> None:
        """Write a close frame."""
        self.send_frame(CLOSE, b"" if code is None else close_payload(code, reason))

    # --- reading -------------------------------------------------------------------------------

    def _fill(self) -> bool:
        """Read some bytes; False at the end of the stream."""
        if self.eof:
            return False
        try:
            data = self.sock.recv(1 << 16)
        except ConnectionResetError:
            self.reset_seen = True
            data = b""
        except ssl.SSLError:
            # Servers end their own responses without close_notify; a WebSocket ends with it.
            self.reset_seen = self.response is None or self.response.status == 101
            data = b""
        if not data:
            self.eof = True
        self.buffer += data
        return bool(data)

    def read_response(self) -> Response:
        """Read an HTTP response: the head, and the body when there is one."""
        while b"\r\n\r\n" not in self.buffer:
            assert self._fill(), f"EOF within the response head: {bytes(self.buffer)!r}"
        head, _, rest = bytes(self.buffer).partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = [tuple(part.strip() for part in line.split(":", 1)) for line in lines]
        response = Response(int(first.split()[1]), headers, b"")  # type: ignore[arg-type]
        self.buffer = bytearray(rest)
        if response.status >= 200 and response.header("Transfer-Encoding") == "chunked":
            response.body = self._read_chunks()
        elif response.status >= 200:
            length = response.header("Content-Length")
            while not self.eof and (length is None or len(self.buffer) < int(length)):
                self._fill()
            size = len(self.buffer) if length is None else int(length)
            response.body = bytes(self.buffer[:size])
            del self.buffer[:size]
        self.response = response
        return response

    def _read_chunks(self) -> bytes:
        """Read a body in chunks, without trailers."""
        body = bytearray()
        while True:
            while (end := self.buffer.find(b"\r\n")) < 0:
                assert self._fill(), f"EOF after {len(body)} bytes of a body in chunks"
            size = int(self.buffer[:end], 16)
            # In place: a chunk may have many MiB, and a copy for each piece would take seconds.
            del self.buffer[: end + 2]
            while len(self.buffer) < size + 2:
                assert self._fill(), f"EOF after {len(self.buffer)} of {size} bytes"
            body += self.buffer[:size]
            del self.buffer[: size + 2]
            if size == 0:
                return bytes(body)

    def _parse(self) -> Frame | None:
        """Take one whole frame from the buffer; None when more bytes are needed."""
        while (frame := self._parse_any()) is not None:
            if frame.opcode != TEXT or frame.payload != self.ignored:
                return frame
        return None

    def _parse_any(self) -> Frame | None:
        data = self.buffer
        if len(data) < 2:
            return None
        first, second = data[0], data[1]
        assert not second & 0x80, f"masked frame from the server: {bytes(data[:32])!r}"
        length, start = second & 0x7F, 2
        if length == 126:
            if len(data) < 4:
                return None
            (length,), start = struct.unpack_from("!H", data, 2), 4
            assert length > 125, "length not in its shortest form"
        elif length == 127:
            if len(data) < 10:
                return None
            (length,), start = struct.unpack_from("!Q", data, 2), 10
            assert length > 65535, "length not in its shortest form"
        opcode = first & 0x0F
        assert opcode in (CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG), bytes(data[:64])
        rsv = first >> 4 & 7
        assert not rsv & ~self.allowed_rsv, f"reserved bits from the server: {bytes(data[:64])!r}"
        if opcode >= CLOSE:
            assert first & 0x80, "fragmented control frame"
            assert length <= 125, "long control frame"
        if len(data) < start + length:
            return None
        payload = bytes(data[start : start + length])
        del data[: start + length]
        return Frame(opcode, payload, bool(first & 0x80), first >> 4 & 7)

    def read_frame(self) -> Frame:
        """Return the next frame."""
        while (frame := self._parse()) is None:
            assert self._fill(), f"EOF instead of a frame; left: {bytes(self.buffer)!r}"
        return frame

    def read_message(self) -> bytes:
        """Return the payload of the next data message; pings are answered on the way."""
        parts = []
        while True:
            frame = self.read_frame()
            if frame.opcode == PING:
                self.send_frame(PONG, frame.payload)
            elif frame.opcode in (TEXT, BINARY, CONTINUATION):
                parts.append(frame.payload)
                if frame.fin:
                    return b"".join(parts)
            else:
                assert frame.opcode == PONG, f"{frame} instead of a message"

    def is_readable(self, within: float) -> bool:
        """Whether bytes, or the end, come within so many seconds."""
        return bool(self.buffer or select.select([self.sock], [], [], within)[0])

    def read_to_eof(self) -> Ending:
        """
        Return all frames up to the end of the connection.

        Fails when bytes are left over that are no frame, or when nothing ends.
        """
        while self._fill():
            pass
        frames = []
        while (frame := self._parse()) is not None:
            frames.append(frame)
        assert not self.buffer, f"not a frame: {bytes(self.buffer)[:200]!r} after {frames}"
        return Ending(frames, self.reset_seen)

    # --- ending --------------------------------------------------------------------------------

    def finish(self) -> None:
        """Send FIN and keep reading. With TLS that is an end without close_notify."""
        # That of an SSLSocket would also end the decryption.
        socket.socket.shutdown(self.sock, socket.SHUT_WR)

    def vanish(self) -> None:
        """End the connection with RST (TCP), without a close frame."""
        with contextlib.suppress(OSError):
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def close(self) -> None:
        """Close the descriptor."""
        self.sock.close()
