"""The class of ``request.websocket`` by its name for uWSGI; it is the same for all servers."""

from dwebsocket.websocket import WebSocket

__all__ = ["uWsgiWebSocket"]

uWsgiWebSocket = WebSocket
