"""
waitress, from version 2.

A method in the environ belongs to the channel, which has the client's socket. Bytes after the
request wait in the channel's next request, as the beginning of its head.
"""

from __future__ import annotations

from dwebsocket.compat.waitress import KEY, channel_of, has_next, reads_ahead, take_head_of_next
from dwebsocket.servers.contract import Client, Environ, Unsupported


def find(environ: Environ) -> Client | None:
    """Returns the client of a request that waitress serves."""
    channel = channel_of(environ)
    if channel is None:
        return None
    if reads_ahead(channel):
        raise Unsupported(
            "waitress reads on after a request while it is served (channel_request_lookahead), "
            "and may have taken the client's first messages for another request: set it to 0"
        )
    if has_next(channel):
        raise Unsupported(
            "waitress has taken what the client sent after its request for another request: the "
            "client must wait for the answer before it sends (RFC 6455 section 4.1)"
        )
    return Client(
        server="waitress",
        descriptor=channel.socket.fileno(),
        read_early=lambda: take_head_of_next(channel),
        let_go=lambda: environ.pop(KEY, None),
        dies_of_sigterm=True,
    )
