"""
cheroot, the server of CherryPy.

The request's body is one or more layers, by size and encoding, over the one buffered reader on the
client's socket.
"""

from __future__ import annotations

import socket

from dwebsocket.compat.cheroot import reader_of
from dwebsocket.compat.socket import below_reader, has_tls
from dwebsocket.servers.contract import Client, Environ, Unsupported


def find(environ: Environ) -> Client | None:
    """Returns the client of a request that cheroot serves."""
    body = environ.get("wsgi.input")
    if type(body).__module__.split(".")[0] != "cheroot":
        return None
    reader = reader_of(body)
    sock = below_reader(reader)
    if environ.get("wsgi.url_scheme") == "https" and not has_tls(sock):
        raise Unsupported(
            "cheroot ends TLS here by another library than Python's ssl, whose connections cannot "
            "be taken over: use cheroot.ssl.builtin.BuiltinSSLAdapter, or end TLS in a proxy such "
            "as nginx in front of it"
        )
    if not isinstance(sock, socket.socket):
        return None
    return Client(
        server="cheroot",
        descriptor=sock.fileno(),
        read_early=lambda: bytes(reader.read()),
        tls=sock if has_tls(sock) else None,
        dies_of_sigterm=True,
    )
