"""Django's request, also in a request class of a framework, and the transports of messages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from django.http import HttpRequest

from dwebsocket.compat.rest_framework import wrapped_request

if TYPE_CHECKING:
    #: The way that messages take: through a WebSocket, or its fallback.
    Transport = Literal["websocket", "sse", "polling"]

#: The key of the environ for a handshake that another process has made.
HANDSHAKE_KEY = "dwebsocket.handshake"
#: The key of META for the environ's texts as the server gave them, before middleware; and after the
#: handshake for those alone that have changed since, each with its text or None.
ENVIRON_KEY = "dwebsocket.environ"
#: The attribute of Django's request that opens a connection by the fallback, or uses one.
BY_FALLBACK = "_dwebsocket_by_fallback"


def http_request(request: Any) -> Any:
    """
    Returns Django's request behind one that wraps it, as that of Django REST framework does.

    Such requests keep Django's as ``_request``, and read missing attributes from it. Any other
    object is returned as it is.
    """
    while not isinstance(request, HttpRequest):
        inner = wrapped_request(request)
        if inner is None:
            break
        request = inner
    return request
