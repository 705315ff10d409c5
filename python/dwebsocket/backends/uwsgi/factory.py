"""The original's way to name the backend for uWSGI. The server is found out without it now."""

from dwebsocket.backends.default.factory import WebSocketFactory
from dwebsocket.backends.sock import SocketWarp

__all__ = ["SocketWarp", "uWsgiWebSocketFactory"]


class uWsgiWebSocketFactory(WebSocketFactory):
    """The same as its base."""
