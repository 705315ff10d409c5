"""
waitress, from version 2.

A method in the environ belongs to the channel, which has the client's socket. Bytes behind the
request wait in the channel's next request, as the beginning of its head.
"""

from __future__ import annotations

import socket
from typing import Any

from dwebsocket.servers.contract import Client, Environ, Unsupported

_KEY = "waitress.client_disconnected"


def find(environ: Environ) -> Client | None:
    """Gives the client of a request that waitress serves."""
    channel = getattr(environ.get(_KEY), "__self__", None)
    sock = getattr(channel, "socket", None)
    if channel is None or not isinstance(sock, socket.socket):
        return None
    if channel.adj.channel_request_lookahead > 0:
        raise Unsupported(
            "waitress reads on behind a request while it is served (channel_request_lookahead), "
            "and may have taken the client's first messages for another request: set it to 0"
        )
    with channel.requests_lock:
        behind = len(channel.requests) > 1
    if behind:
        raise Unsupported(
            "waitress has taken what the client sent behind its request for another request: the "
            "client must wait for the answer before it sends (RFC 6455 section 4.1)"
        )
    return Client(
        server="waitress",
        descriptor=sock.fileno(),
        read_early=lambda: _head_of_next(channel),
        let_go=lambda: _forget(environ),
        dies_of_sigterm=True,
    )


def _head_of_next(channel: Any) -> bytes:
    with channel.requests_lock:
        unfinished, channel.request = channel.request, None
    return b"" if unfinished is None else bytes(unfinished.header_plus)


def _forget(environ: Environ) -> None:
    environ.pop(_KEY, None)
