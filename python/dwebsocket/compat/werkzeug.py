"""Undocumented parts of Werkzeug, versions 2.3 to 3.1: the bodies of its development server."""

from __future__ import annotations


def reader_of(body: object) -> object:
    """
    Returns the reader below a request's body.

    ``DechunkedInput._rfile``, since 0.15: a body in chunks has a reader of its own above the
    socket's. Any other body, and one without the attribute, is given as it is; where it is no
    buffered reader the server's family refuses the handshake.
    """
    return getattr(body, "_rfile", body)
