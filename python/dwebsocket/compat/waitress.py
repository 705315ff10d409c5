"""Undocumented parts of waitress, versions 2 and 3: its channels."""

from __future__ import annotations

import socket
from typing import Any

KEY = "waitress.client_disconnected"
_NEEDED = ("adj", "requests", "requests_lock", "request")


def channel_of(environ: dict[str, Any]) -> Any:
    """
    Returns the channel, which has the client's connection, of a request that waitress serves.

    It is the object of the method ``environ["waitress.client_disconnected"]`` (documented), since
    2.0. None where that is no channel, or lacks a part that is needed here: then the server is not
    recognised, and the handshake is refused.
    """
    channel = getattr(environ.get(KEY), "__self__", None)
    if not isinstance(getattr(channel, "socket", None), socket.socket):
        return None
    return channel if all(hasattr(channel, name) for name in _NEEDED) else None


def reads_ahead(channel: Any) -> bool:
    """
    Whether it parses bytes after a request as the next request, while the first is served.

    ``adj.channel_request_lookahead``, since 2.0 (``adj`` is private, the setting is not). Where it
    is missing: no, which has always been the default.
    """
    return bool(getattr(channel.adj, "channel_request_lookahead", 0) > 0)


def has_next(channel: Any) -> bool:
    """Whether another request is complete after the one that is served: ``requests``."""
    with channel.requests_lock:
        return len(channel.requests) > 1


def take_head_of_next(channel: Any) -> bytes:
    """
    Removes and returns the begun head of the "next request": these are the client's early bytes.

    ``request.header_plus`` (``HTTPRequestParser``), since 0.8. Empty where there is no request;
    where the attribute is missing the AttributeError names it.
    """
    with channel.requests_lock:
        unfinished, channel.request = channel.request, None
    return b"" if unfinished is None else bytes(unfinished.header_plus)
