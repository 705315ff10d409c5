"""The original's way to name the default backend."""

from __future__ import annotations

import logging

from dwebsocket import factory
from dwebsocket.backends.sock import SocketWarp

__all__ = ["WebSocketFactory"]

logger = logging.getLogger(__name__)


class WebSocketFactory(factory.WebSocketFactory):
    """As its base, with the call by which factories of the original make a protocol."""

    def get_wsgi_sock(self) -> SocketWarp:
        """
        Gives the client's socket, for ``WebSocketProtocol13(sock=…, headers=…)``.

        Whether the server gives it away shows when it is used.
        """
        return SocketWarp(self.request)
