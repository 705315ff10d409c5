"""The class behind ``WEBSOCKET_FACTORY_CLASS``: what decides that a request is a WebSocket."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dwebsocket.request import http_request
from dwebsocket.websocket import WebSocket

if TYPE_CHECKING:
    from django.http import HttpRequest


# What only a client that wants a WebSocket sends, even where a proxy has dropped the rest.
_MARKS = ("HTTP_SEC_WEBSOCKET_KEY", "HTTP_SEC_WEBSOCKET_KEY1", "HTTP_SEC_WEBSOCKET_VERSION")


class WebSocketFactory:
    """
    Decides whether a request becomes a WebSocket, and makes its ``request.websocket``.

    Projects may subclass it and name the subclass in ``WEBSOCKET_FACTORY_CLASS``. An instance
    serves one request, before it is answered.
    """

    #: What :meth:`create_websocket` makes; it is called without arguments.
    websocket_class: type[WebSocket] = WebSocket

    def __init__(self, request: HttpRequest) -> None:
        self.request: HttpRequest = http_request(request)

    def is_websocket(self) -> bool:
        """
        Whether the client asks for a WebSocket, however badly.

        It is the request's ``is_websocket()``. What is True here is judged as a handshake; what is
        False reaches the view as plain HTTP.
        """
        scope = self.request.__dict__.get("scope")
        if scope is not None and scope.get("type") == "websocket":
            # An ASGI server has judged it; over HTTP/2 there are none of the headers.
            return True
        upgrade = self.request.META.get("HTTP_UPGRADE", "")
        names = [name.strip().lower() for name in upgrade.split(",")]
        return "websocket" in names or any(mark in self.request.META for mark in _MARKS)

    def get_websocket_version(self) -> int | None:
        """Gives the version that the client speaks (RFC 6455 section 4.4), None without one."""
        version = self.request.META.get("HTTP_SEC_WEBSOCKET_VERSION", "").strip()
        return int(version) if version.isascii() and version.isdigit() else None

    def create_websocket(self) -> WebSocket | None:
        """Makes the connection's object, not open yet; None refuses the handshake with 400."""
        return self.websocket_class()
