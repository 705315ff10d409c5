"""What waitress does not document, versions 2 and 3: its channels."""

from __future__ import annotations

import socket
from typing import Any

KEY = "waitress.client_disconnected"
_NEEDED = ("adj", "requests", "requests_lock", "request")


def channel_of(environ: dict[str, Any]) -> Any:
    """
    Gives the channel, which has the client's connection, of a request that waitress serves.

    It is what ``environ["waitress.client_disconnected"]`` (documented) is a method of, since 2.0.
    None where that is no channel, or lacks something that is needed here: then the server is not
    known, and the handshake is refused.
    """
    channel = getattr(environ.get(KEY), "__self__", None)
    if not isinstance(getattr(channel, "socket", None), socket.socket):
        return None
    return channel if all(hasattr(channel, name) for name in _NEEDED) else None


def reads_ahead(channel: Any) -> bool:
    """
    Whether it takes what comes behind a request for the next one while the first is served.

    ``adj.channel_request_lookahead``, since 2.0 (``adj`` is private, the setting is not). Where it
    is missing: no, which has always been the default.
    """
    return bool(getattr(channel.adj, "channel_request_lookahead", 0) > 0)


def has_next(channel: Any) -> bool:
    """Whether another request is complete behind the one that is served: ``requests``."""
    with channel.requests_lock:
        return len(channel.requests) > 1


def take_head_of_next(channel: Any) -> bytes:
    """
    Takes away what has come of the next request's head, which is not one: early bytes.

    ``request.header_plus`` (``HTTPRequestParser``), since 0.8. None has come where there is no
    request; where the attribute is missing the AttributeError names it.
    """
    with channel.requests_lock:
        unfinished, channel.request = channel.request, None
    return b"" if unfinished is None else bytes(unfinished.header_plus)
