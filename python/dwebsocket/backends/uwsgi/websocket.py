"""The class of ``request.websocket`` by its name for uWSGI; it is the same for all servers."""

from dwebsocket.websocket import WebSocket as uWsgiWebSocket

__all__ = ["uWsgiWebSocket"]
