"""The original's import path of uWSGI's factory. The server is now detected without it."""

from dwebsocket.backends.default.factory import WebSocketFactory
from dwebsocket.backends.sock import SocketWarp

__all__ = ["SocketWarp", "uWsgiWebSocketFactory"]


class uWsgiWebSocketFactory(WebSocketFactory):
    """The same as its base."""
