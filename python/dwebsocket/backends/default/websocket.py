"""The original's path to the class of ``request.websocket``."""

from dwebsocket.websocket import WebSocket as DefaultWebSocket

__all__ = ["DefaultWebSocket"]
