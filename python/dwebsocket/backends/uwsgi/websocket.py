"""The class of ``request.websocket`` by the name of uWSGI, which has none of its own."""

from dwebsocket.websocket import WebSocket

__all__ = ["uWsgiWebSocket"]

uWsgiWebSocket = WebSocket
