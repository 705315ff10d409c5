"""permessage-deflate for a raw peer: both directions by CPython's zlib, every bit chosen."""

from __future__ import annotations

import dataclasses
import zlib
from typing import TYPE_CHECKING

from support.raw_peer import PING, TEXT, Frame, RawPeer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.server import Server

RSV1 = 4
TAIL = b"\x00\x00\xff\xff"


@dataclasses.dataclass(frozen=True)
class Agreement:
    """The parameters in a response's `Sec-WebSocket-Extensions`."""

    server_no_context_takeover: bool = False
    client_no_context_takeover: bool = False
    server_max_window_bits: int = 15
    client_max_window_bits: int = 15

    @classmethod
    def parse(cls, header: str) -> Agreement:
        """Read it; anything that RFC 7692 does not know is a failure."""
        name, *parameters = [part.strip() for part in header.split(";")]
        assert name == "permessage-deflate", header
        values = dict(parameter.partition("=")[::2] for parameter in parameters)
        assert len(values) == len(parameters), header
        return cls(**{key: int(value) if value else True for key, value in values.items()})


class DeflatePeer(RawPeer):
    """A peer that compresses by the agreement, and accepts nothing beyond it."""

    allowed_rsv = RSV1
    agreement: Agreement

    @classmethod
    def offering(cls, server: Server, path: str, offer: str) -> DeflatePeer:
        """Connect with an offer, which the server has to accept."""
        peer = cls.open(server, path, headers={"Sec-WebSocket-Extensions": offer})
        assert isinstance(peer, DeflatePeer)
        assert peer.response is not None
        header = peer.response.header("Sec-WebSocket-Extensions")
        assert header is not None, "the offer was declined"
        peer.agreement = Agreement.parse(header)
        peer._forget_ours()
        peer._forget_theirs()
        return peer

    def _forget_ours(self) -> None:
        # zlib has no window of 8 bits for raw DEFLATE; what it makes with 9 may look back further.
        bits = max(self.agreement.client_max_window_bits, 9)
        self._compressor = zlib.compressobj(wbits=-bits)

    def _forget_theirs(self) -> None:
        self._inflater = zlib.decompressobj(wbits=-self.agreement.server_max_window_bits)

    def deflated(self, message: bytes) -> bytes:
        """Compress one message by the agreement."""
        payload = self._compressor.compress(message)
        payload += self._compressor.flush(zlib.Z_SYNC_FLUSH)
        if self.agreement.client_no_context_takeover:
            self._forget_ours()
        assert payload.endswith(TAIL)
        return payload[:-4]

    def inflated(self, frame: Frame) -> bytes:
        """Give the message of one frame; the server does not fragment."""
        assert frame.fin
        if not frame.rsv:
            return frame.payload
        assert frame.rsv == RSV1
        message = self._inflater.decompress(frame.payload + TAIL)
        assert not self._inflater.unconsumed_tail
        assert not self._inflater.unused_data
        if self.agreement.server_no_context_takeover:
            self._forget_theirs()
        return message

    def send_deflated(self, message: bytes, opcode: int = TEXT, fragments: int = 1) -> None:
        """Send a compressed message, in one frame or in several."""
        payload = self.deflated(message)
        size = -(-len(payload) // fragments)
        pieces = [payload[i * size : (i + 1) * size] for i in range(fragments)]
        for number, piece in enumerate(pieces):
            self.send_frame(
                opcode if number == 0 else 0,
                piece,
                fin=number == fragments - 1,
                rsv=RSV1 if number == 0 else 0,
            )

    def read_inflated(self) -> tuple[int, bytes, bool]:
        """Read one message: its opcode, its payload, and whether it came compressed."""
        frame = self.read_frame()
        while frame.opcode == PING:
            # The server's keepalive, where a test takes so long.
            frame = self.read_frame()
        return frame.opcode, self.inflated(frame), bool(frame.rsv)


def raw(message: bytes, **style: int) -> bytes:
    """Compress one message on its own."""
    compressor = zlib.compressobj(wbits=-15, **style)
    return (compressor.compress(message) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]


def finished(message: bytes) -> bytes:
    """Compress one message into blocks of which the last is final."""
    compressor = zlib.compressobj(wbits=-15)
    return compressor.compress(message) + compressor.flush()


def corpus(kind: str, size: int, count: int) -> Iterator[bytes]:
    """
    Make `count` messages of `size` bytes.

    Kinds: `json`, which repeats itself; `text` in several scripts; `noise`, which does not shrink.
    """
    seed = 12345
    for number in range(count):
        message = bytearray()
        while len(message) < size:
            seed = (seed * 1103515245 + 12345) % 2**31
            if kind == "json":
                message += b'{"id": %d, "user": "alice", "seen": false},' % (seed % 1000)
            elif kind == "text":
                message += ("grün ", "水 ", "🎉 ", f"{number} ")[seed >> 16 & 3].encode()
            else:
                message += (seed >> 8 & 0xFFFF).to_bytes(2, "big")
        text = bytes(message[:size])
        # A character that the size has cut in two makes room for something else.
        yield text if kind == "noise" else text.decode(errors="ignore").encode().ljust(size)
