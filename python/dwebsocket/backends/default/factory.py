"""The original's way to name the default backend."""

from dwebsocket.factory import WebSocketFactory

__all__ = ["WebSocketFactory"]
