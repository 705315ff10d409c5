"""Handlers; each shows one behaviour."""

from __future__ import annotations

import threading
from typing import Any

from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, JsonResponse

from dwebsocket import WebSocketHandler

#: The ends that handlers saw, by name.
seen: dict[str, Any] = {}


def seen_by(request: HttpRequest, name: str) -> JsonResponse:
    """Return the end that a handler noted."""
    return JsonResponse({"seen": seen.get(name)})


class Echo(WebSocketHandler):
    """Echo with exact types, and note the end."""

    def receive(self, message: str | bytes) -> None:
        """Send it back."""
        send = self.websocket.send_text if isinstance(message, str) else self.websocket.send_bytes
        send(message)

    def disconnect(self, code: int, reason: str) -> None:
        """Note the end."""
        seen[self.kwargs["name"]] = [code, threading.active_count() > 0]


class Door(Echo):
    """Decide before the handshake is answered."""

    def connect(self) -> HttpResponse | None:
        """Refuse by a response or an exception, or accept."""
        return _decide(self.kwargs["name"])


class AsyncDoor(Door):
    """The same in an event loop."""

    async def connect(self) -> HttpResponse | None:
        """Refuse by a response or an exception, or accept."""
        return _decide(self.kwargs["name"])


def _decide(name: str) -> HttpResponse | None:
    if name == "denied":
        raise PermissionDenied
    return HttpResponse("pay", status=402) if name == "pay" else None


class AsyncEcho(WebSocketHandler):
    """Echo in the event loop."""

    async def connect(self) -> None:
        """Have a message to begin with."""
        self.count = 0

    async def receive(self, message: str | bytes) -> None:
        """Send it back."""
        self.count += 1
        if isinstance(message, str):
            await self.websocket.asend_text(message)
        else:
            await self.websocket.asend_bytes(message)

    async def disconnect(self, code: int, reason: str) -> None:
        """Note the end."""
        seen[self.kwargs["name"]] = [code, self.count > 0]


class MixedEcho(Echo):
    """Echo on threads, in a room, between coroutine functions."""

    groups = ("handlers-{name}",)

    async def connect(self) -> None:
        """Accept."""

    async def disconnect(self, code: int, reason: str) -> None:
        """Note the end."""
        seen[self.kwargs["name"]] = [code, True]
