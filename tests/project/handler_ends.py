"""Handlers, and views beside them, that note their ends in a file: for the end of a process."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

from django.urls import path

from dwebsocket import WebSocketHandler, accept_websocket

if TYPE_CHECKING:
    from django.http import HttpRequest

_LOOK_S = 0.01


def note(kind: str, code: int | None) -> None:
    """Add a line to the file, which outlives the process: the kind and the close code."""
    with open(f"{os.environ['PROJECT_DB']}.ends", "a") as file:
        file.write(f"{kind} {code}\n")


class Idle(WebSocketHandler):
    """Waits for messages, and says which process this is."""

    kind = "idle"

    def receive(self, message: str | bytes) -> None:
        """Say it."""
        self.websocket.send_text(str(os.getpid()))

    def disconnect(self, code: int, reason: str) -> None:
        """Note it."""
        note(self.kind, code)


class AsyncIdle(WebSocketHandler):
    """The same in an event loop."""

    kind = "async idle"

    async def receive(self, message: str | bytes) -> None:
        """Say it."""
        await self.websocket.asend_text(str(os.getpid()))

    async def disconnect(self, code: int, reason: str) -> None:
        """Note it."""
        note(self.kind, code)


class MixedIdle(Idle):
    """On threads, but for its end."""

    kind = "mixed idle"

    async def disconnect(self, code: int, reason: str) -> None:
        """Note it."""
        await asyncio.sleep(0)
        note(self.kind, code)


class Ticking(Idle):
    """Says the process again and again."""

    kind, every = "ticking", 0.05

    def tick(self) -> None:
        """Say it."""
        self.websocket.send_text(str(os.getpid()))


class AsyncTicking(AsyncIdle):
    """The same in an event loop."""

    kind, every = "async ticking", 0.05

    async def tick(self) -> None:
        """Say it."""
        await self.websocket.asend_text(str(os.getpid()))


class Busy(Idle):
    """Is in the middle of a call until its connection ends."""

    kind = "busy"

    def receive(self, message: str | bytes) -> None:
        """Look again and again."""
        self.websocket.send_text("at work")
        while not self.websocket.wait_closed(_LOOK_S):
            pass


class AsyncBusy(AsyncIdle):
    """The same in an event loop."""

    kind = "async busy"

    async def receive(self, message: str | bytes) -> None:
        """Look again and again."""
        await self.websocket.asend_text("at work")
        while not await self.websocket.await_closed(_LOOK_S):
            pass


@accept_websocket(text_type=str)
def view(request: HttpRequest) -> None:
    """A view for comparison."""
    for _ in request.websocket:
        request.websocket.send(str(os.getpid()))
    note("view", request.websocket.close_code)


@accept_websocket(text_type=str)
async def async_view(request: HttpRequest) -> None:
    """An async one."""
    async for _ in request.websocket:
        await request.websocket.asend(str(os.getpid()))
    note("async view", request.websocket.close_code)


HANDLERS = (Idle, AsyncIdle, MixedIdle, Ticking, AsyncTicking, Busy, AsyncBusy)
urlpatterns = [
    *[path(f"{cls.kind.replace(' ', '-')}/", cls.as_view()) for cls in HANDLERS],
    path("view/", view),
    path("async-view/", async_view),
]
