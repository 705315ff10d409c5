"""The class behind ``WEBSOCKET_FACTORY_CLASS``: decides which requests are WebSockets."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from dwebsocket.handshake import preloading
from dwebsocket.request import BY_FALLBACK, http_request
from dwebsocket.websocket import WebSocket

if TYPE_CHECKING:
    from django.http import HttpRequest

logger = logging.getLogger(__name__)

# Where a project's own middleware makes WebSockets.
preloading.begin_with_a_request()

# Headers that only a WebSocket client sends; a proxy may have dropped Upgrade and Connection.
_MARKS = ("HTTP_SEC_WEBSOCKET_KEY", "HTTP_SEC_WEBSOCKET_KEY1", "HTTP_SEC_WEBSOCKET_VERSION")


class WebSocketFactory:
    """
    Decides whether a request becomes a WebSocket, and makes its ``request.websocket``.

    Projects may subclass it and name the subclass in ``WEBSOCKET_FACTORY_CLASS``. An instance
    serves one request, before it is answered.
    """

    #: The class of which :meth:`create_websocket` makes an object, without arguments.
    websocket_class: type[WebSocket] = WebSocket

    def __init__(self, request: HttpRequest) -> None:
        self.request: HttpRequest = http_request(request)

    def is_websocket(self) -> bool:
        """
        Whether the client asks for a WebSocket, even by a malformed handshake, or for its fallback.

        It is the request's ``is_websocket()``. A request for which it is True is validated as a
        handshake; any other one reaches the view as plain HTTP.
        """
        scope = self.request.__dict__.get("scope")
        if scope is not None and scope.get("type") == "websocket":
            # An ASGI server has validated it; over HTTP/2 there are none of the headers.
            return True
        if BY_FALLBACK in self.request.__dict__:
            return True
        upgrade = self.request.META.get("HTTP_UPGRADE", "")
        names = [name.strip().lower() for name in upgrade.split(",")]
        return "websocket" in names or any(mark in self.request.META for mark in _MARKS)

    def get_websocket_version(self) -> str:
        """
        Returns the protocol version that the headers belong to, as the original names it.

        Returns:
            ``"13"`` with a key as in RFC 6455; ``"76"`` and ``"75"`` for drafts, which are refused
            when the handshake is validated.

        Raises:
            ValueError: The first key of draft 76 without the second.
        """
        meta = self.request.META
        if "HTTP_SEC_WEBSOCKET_KEY1" in meta:
            if "HTTP_SEC_WEBSOCKET_KEY2" not in meta:
                raise ValueError(
                    "a handshake of draft 76 has two keys: Sec-WebSocket-Key2 is missing"
                )
            return "76"
        return "13" if "HTTP_SEC_WEBSOCKET_KEY" in meta else "75"

    def create_websocket(self) -> WebSocket | None:
        """
        Makes the connection's object, not open yet.

        Returns:
            None for plain HTTP. An override may also give None, or raise ``ValueError``, to refuse
            a handshake with 400.
        """
        if not self.is_websocket():
            return None
        websocket = self.websocket_class()
        websocket._made_of(self.request)
        return websocket
