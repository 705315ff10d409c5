"""Undocumented parts of cheroot, versions 10 and 11: the layers of a request's body."""

from __future__ import annotations

from typing import Any


def reader_of(body: Any) -> Any:
    """
    Returns the lowest layer of a body, the one buffered reader on the client's socket.

    ``rfile`` of ``SizeCheckWrapper``, ``KnownLengthRFile`` and ``ChunkedRFile``. Where
    it is missing the layer that lacks it is given, below which there is no socket: the server's
    family refuses the handshake.
    """
    while (below := getattr(body, "rfile", None)) is not None:
        body = below
    return body
