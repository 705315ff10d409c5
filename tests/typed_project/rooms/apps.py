"""Receivers of the signals."""

from typing import Any

from django.apps import AppConfig

from dwebsocket import WebSocket
from dwebsocket.signals import websocket_closed, websocket_opened

ends: list[int] = []


class Rooms(AppConfig):
    """The app."""

    name = "rooms"

    def ready(self) -> None:
        """Connects them."""
        websocket_closed.connect(on_closed)
        websocket_opened.connect(on_opened)


def on_closed(websocket: WebSocket, code: int, **facts: Any) -> None:
    """Counts the ends."""
    ends.append(code)


async def on_opened(websocket: WebSocket, **facts: Any) -> None:
    """Nothing to do."""
