"""
Testing views with WebSockets: Django's test clients, with one more method.

::

    with client.websocket("/chat/lobby/") as ws:
        ws.send("hello")
        assert ws.receive() == "hello"

Behind both test clients the real engine runs, over a socket pair. Works in Django's and unittest's
test cases (:class:`WebSocketTestMixin`) and in pytest (fixtures of
:mod:`dwebsocket.testing.plugin`). A test that leaves connections behind fails:
:class:`WebSocketLeak`.
"""

from __future__ import annotations

from dwebsocket.testing.case import WebSocketTestMixin
from dwebsocket.testing.client import AsyncWebSocketClient, WebSocketClient
from dwebsocket.testing.clock import Clock
from dwebsocket.testing.databases import DatabaseBusy
from dwebsocket.testing.live import LiveWebSocketClient
from dwebsocket.testing.rooms import AsyncClientRooms, ClientRooms, RoomError
from dwebsocket.testing.scope import WebSocketLeak, websockets_of_a_test
from dwebsocket.testing.watch import ViewStillRuns
from dwebsocket.testing.websocket import AsyncClientWebSocket, ClientWebSocket, WebSocketRefused
from dwebsocket.testing.wire import WireError

__all__ = [
    "AsyncClientRooms",
    "AsyncClientWebSocket",
    "AsyncWebSocketClient",
    "ClientRooms",
    "ClientWebSocket",
    "Clock",
    "DatabaseBusy",
    "LiveWebSocketClient",
    "RoomError",
    "ViewStillRuns",
    "WebSocketClient",
    "WebSocketLeak",
    "WebSocketRefused",
    "WebSocketTestMixin",
    "WireError",
    "websockets_of_a_test",
]
