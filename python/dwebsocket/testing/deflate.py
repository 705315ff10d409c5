"""The client's side of permessage-deflate (RFC 7692), by Python's own zlib."""

from __future__ import annotations

import zlib
from functools import partial

_BROWSERS_OFFER = "permessage-deflate; client_max_window_bits"
_TAIL = b"\x00\x00\xff\xff"


def offer_of(compression: bool | str) -> str:  # noqa: FBT001
    """Returns the offer of a handshake for an argument ``compression``; empty for no offer."""
    if compression is True:
        return _BROWSERS_OFFER
    return compression or ""


class Deflate:
    """
    Both directions of one connection.

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
