"""Types for the annotations of a project."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.http import HttpRequest

if TYPE_CHECKING:
    from dwebsocket.websocket import WebSocket


class WebSocketRequest(HttpRequest):
    """
    The request of a view: ``def chat(request: WebSocketRequest)``.

    For annotations only. No request is an instance of it: requests are objects of Django's
    handlers, with two more attributes.

    Attributes:
        websocket: The connection. None for a plain HTTP request: a view of ``@accept_websocket``
            calls :meth:`is_websocket` first.
    """

    websocket: WebSocket

    def is_websocket(self) -> bool:
        """Whether a WebSocket was asked for."""
        return getattr(self, "websocket", None) is not None
