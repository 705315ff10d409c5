"""The original's path to the class of ``request.websocket``."""

from dwebsocket.websocket import WebSocket

__all__ = ["DefaultWebSocket"]

DefaultWebSocket = WebSocket
