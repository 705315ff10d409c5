"""
The client's end of a connection without any I/O: turns bytes into messages, and back.

Frames are parsed and written in Rust, by a client's rules (:mod:`dwebsocket._core`); compression
is that of Python's own zlib.
"""

from __future__ import annotations

import base64
import hashlib
import os
import struct
import zlib
from collections import deque
from functools import partial

from dwebsocket import _core

Message = str | bytes

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA

_GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_END_OF_HEAD = b"\r\n\r\n"
_NO_STATUS, _ABNORMAL = 1005, 1006
_BROWSERS_OFFER = "permessage-deflate; client_max_window_bits"
_TAIL = b"\x00\x00\xff\xff"


def offer_of(compression: bool | str) -> str:  # noqa: FBT001
    """Returns the offer of a handshake for an argument ``compression``; empty for no offer."""
    if compression is True:
        return _BROWSERS_OFFER
    return compression or ""


class WireError(AssertionError):
    """The server has violated the protocol."""


class Wire:
    """
    The client's end of one connection.

    Attributes:
        offer: The extension that is offered, as the header has it; empty for none.
        headers: The headers of the 101, names in lower case; of several with one name the last.
            ``None`` until it has come.
        messages: Whole messages that have come.
        pings: How many pings have come.
        pongs: The payloads of the pongs that have come.
        close: Code and reason of the server's end, once it has ended: 1005 for a close frame
            without a code, 1006 for none at all.
        outgoing: Bytes that are to be sent.
        close_sent: A close frame was queued.
        sent: How many messages the client has sent.
    """

    def __init__(self, *, answer_pings: bool = True, offer: str = "") -> None:
        self.offer = offer
        self.key = base64.b64encode(os.urandom(16)).decode()
        self.headers: dict[str, str] | None = None
        self.messages: deque[Message] = deque()
        self.pings = 0
        self.pongs: list[bytes] = []
        self.close: tuple[int, str] | None = None
        self.outgoing = bytearray()
        self.close_sent = False
        self.sent = 0
        self._answer_pings = answer_pings
        self._head = b""
        self._reader = _core.FrameReader()
        self._deflate: _Deflate | None = None
        # The unfinished message: its opcode, whether it is compressed, and its fragments so far.
        self._fragments: tuple[int, bool, list[bytes]] | None = None

    @property
    def is_over(self) -> bool:
        """Whether nothing more can come."""
        return self.close is not None

    def feed(self, data: bytes) -> None:
        """
        Takes bytes from the server; empty bytes are the end of the stream.

        Raises:
            WireError: The bytes violate the protocol.
        """
        if not data:
            self.close = self.close or (_ABNORMAL, "")
            return
        if self.headers is None:
            self._head += data
            head, end, data = self._head.partition(_END_OF_HEAD)
            if not end:
                return
            first, *lines = head.decode("latin-1").split("\r\n")
            if not first.startswith("HTTP/1.1 101 "):
                raise WireError(f"no WebSocket came, but {first!r}")
            pairs = (line.partition(":") for line in lines)
            self.begin([(name.strip(), value.strip()) for name, _, value in pairs])
        self._reader.feed(data)
        while not self.is_over and (frame := self._next_frame()) is not None:
            self._take(*frame)

    def begin(self, headers: list[tuple[str, str]]) -> None:
        """
        Takes the headers of the 101.

        Raises:
            WireError: They do not answer this client's handshake.
        """
        found = {name.lower(): value for name, value in headers}
        digest = hashlib.sha1((self.key + _GUID).encode(), usedforsecurity=False).digest()
        if found.get("sec-websocket-accept") != base64.b64encode(digest).decode():
            raise WireError("the server did not answer this handshake's key")
        if answer := found.get("sec-websocket-extensions"):
            if not self.offer:
                raise WireError(f"the server agrees on {answer!r}, which was not offered")
            self._deflate = _Deflate(answer)
        self.headers = found

    def send(self, message: Message) -> None:
        """Queues a message: ``str`` as text, ``bytes`` as binary; compressed if agreed on."""
        if isinstance(message, str):
            opcode, payload = TEXT, message.encode()
        elif isinstance(message, (bytes, bytearray, memoryview)):
            opcode, payload = BINARY, bytes(message)
        else:
            raise TypeError(f"a message must be str or bytes, not {type(message).__name__}")
        if self._deflate is None:
            self.send_frame(opcode, payload)
        else:
            self.send_frame(opcode, self._deflate.deflate(payload), is_compressed=True)

    def send_frame(
        self, opcode: int, payload: bytes, *, is_final: bool = True, is_compressed: bool = False
    ) -> None:
        """Queues one frame as it is, also one that violates the protocol."""
        if is_final and opcode in (TEXT, BINARY, CONTINUATION):
            self.sent += 1
        key = os.urandom(4)
        self.outgoing += _core.client_frame(
            opcode, payload, key, is_final=is_final, rsv1=is_compressed
        )

    def send_close(self, code: int | None, reason: str) -> None:
        """Queues a close frame; a second one is not sent."""
        if not self.close_sent:
            self.close_sent = True
            self.send_frame(
                CLOSE, b"" if code is None else struct.pack("!H", code) + reason.encode()
            )

    def _next_frame(self) -> tuple[int, bytes, bool, bool] | None:
        try:
            return self._reader.next_frame()
        except ValueError as error:
            raise WireError(str(error)) from None

    def _take(self, opcode: int, payload: bytes, is_final: bool, is_compressed: bool) -> None:  # noqa: FBT001
        if is_compressed and (self._deflate is None or opcode not in (TEXT, BINARY)):
            raise WireError("a reserved bit is set that no extension was negotiated for")
        if opcode == PING:
            self.pings += 1
            if self._answer_pings and not self.close_sent:
                self.send_frame(PONG, payload)
        elif opcode == PONG:
            self.pongs.append(payload)
        elif opcode == CLOSE:
            code = struct.unpack("!H", payload[:2])[0] if payload else _NO_STATUS
            self.close = (code, payload[2:].decode())
            self.send_close(code if payload else None, "")
        else:
            if (opcode == CONTINUATION) != (self._fragments is not None):
                raise WireError("a fragment came out of its order")
            if self._fragments is None:
                self._fragments = (opcode, is_compressed, [])
            self._fragments[2].append(payload)
            if is_final:
                self._finish_message(*self._fragments)

    def _finish_message(self, opcode: int, is_compressed: bool, fragments: list[bytes]) -> None:  # noqa: FBT001
        self._fragments = None
        message = b"".join(fragments)
        if is_compressed and self._deflate is not None:
            try:
                message = self._deflate.inflate(message)
            except ValueError as error:
                raise WireError(str(error)) from None
        self.messages.append(message.decode() if opcode == TEXT else message)


class _Deflate:
    """
    Both directions of one connection with permessage-deflate (RFC 7692).

    Args:
        answer: The extension that the server has accepted, with its parameters.
    """

    def __init__(self, answer: str) -> None:
        _, *parameters = (part.strip() for part in answer.split(";"))
        terms = dict(part.partition("=")[::2] for part in parameters)
        self._forgets = "client_no_context_takeover" in terms
        self._is_forgotten = "server_no_context_takeover" in terms
        bits = int(terms.get("client_max_window_bits") or 15)
        self._new_deflater = partial(zlib.compressobj, wbits=-bits)
        self._deflater = self._new_deflater()
        self._inflater = zlib.decompressobj(-15)

    def deflate(self, message: bytes) -> bytes:
        """Returns the payload of a message (RFC 7692 section 7.2.1)."""
        if self._forgets:
            self._deflater = self._new_deflater()
        payload = self._deflater.compress(message) + self._deflater.flush(zlib.Z_SYNC_FLUSH)
        return payload.removesuffix(_TAIL)

    def inflate(self, payload: bytes) -> bytes:
        """
        Returns the message of a payload (RFC 7692 section 7.2.2).

        Raises:
            ValueError: It is no valid payload.
        """
        if self._is_forgotten:
            self._inflater = zlib.decompressobj(-15)
        try:
            return self._inflater.decompress(payload + _TAIL)
        except zlib.error as error:
            raise ValueError(f"what came cannot be inflated: {error}") from None
