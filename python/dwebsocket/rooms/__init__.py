"""Rooms: many groups over one WebSocket, joined and left by the page."""

from dwebsocket.rooms.room import Room
from dwebsocket.rooms.view import rooms

__all__ = ["Room", "rooms"]
