"""The original's way to name the backend for uWSGI. The server is found out without it now."""

from dwebsocket.factory import WebSocketFactory

__all__ = ["uWsgiWebSocketFactory"]


class uWsgiWebSocketFactory(WebSocketFactory):
    """The same as its base."""
