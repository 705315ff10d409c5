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


def reads_whole_chunks(body: object) -> bool:
    """
    Whether a read of a body takes a whole chunk of the client's into memory, of whatever size.

    So does ``ChunkedRFile``. Under another name it would be read.
    """
    kind = type(body)
    return (kind.__module__, kind.__name__) == ("cheroot.server", "ChunkedRFile")
