"""The original's path to :mod:`dwebsocket.api.protocol`."""

from dwebsocket.api.protocol import WebSocketProtocol13, get_websocket_protocol, protocols

__all__ = ["WebSocketProtocol13", "get_websocket_protocol", "protocols"]
