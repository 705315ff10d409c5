"""The original's import path of the default backend's factory."""

from __future__ import annotations

import logging

from dwebsocket import factory
from dwebsocket.backends.sock import SocketWarp

__all__ = ["WebSocketFactory"]

logger = logging.getLogger(__name__)


class WebSocketFactory(factory.WebSocketFactory):
    """The factory with ``get_wsgi_sock()``, which factories of the original call."""

    def get_wsgi_sock(self) -> SocketWarp:
        """
        Returns the client's socket, for ``WebSocketProtocol13(sock=…, headers=…)``.

        The server is asked for the socket only when the result is used; ``UnsupportedServer`` is
        raised then.
        """
        return SocketWarp(self.request)
