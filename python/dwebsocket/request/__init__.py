"""Django's request, also in a request class of a framework, and the transport that it asks for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from django.http import HttpRequest

from dwebsocket.compat.rest_framework import wrapped_request

if TYPE_CHECKING:
    from django.http import HttpRequest as DjangoRequest

    #: The way that messages take: through a WebSocket, or its fallback.
    Transport = Literal["websocket", "sse", "polling"]

_TRANSPORT = "_dwebsocket_transport"


def transport_of(request: DjangoRequest) -> Transport:
    """Returns the transport that Django's request asks for, as :func:`ask_for` has noted."""
    transport: Transport = request.__dict__.get(_TRANSPORT, "websocket")
    return transport


def ask_for(request: DjangoRequest, transport: Transport) -> None:
    """Notes that Django's request opens a connection by the fallback."""
    request.__dict__[_TRANSPORT] = transport
    # The answer of middleware about it, before the view was known.
    request.__dict__.pop("is_websocket", None)


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
