"""Handlers: sync and async."""

from django.contrib.auth.mixins import LoginRequiredMixin
from django.core.exceptions import PermissionDenied
from django.http import HttpResponse

from dwebsocket import WebSocketHandler, WebSocketRequest


class Room(WebSocketHandler):
    """The methods are functions."""

    groups = ("room-{name}",)
    resume = True
    every = 60
    minutes = 0
    max_message_size = 1000
    text_type = str

    def get(self, request: WebSocketRequest, name: str) -> HttpResponse:
        """The page."""
        return HttpResponse(f"{name} {request.path}")

    def connect(self) -> HttpResponse | None:
        """May refuse."""
        if self.kwargs["name"] == "closed":
            raise PermissionDenied
        if self.request.GET.get("page"):
            return HttpResponse(status=403)
        return None

    def receive(self, message: str | bytes) -> None:
        """Passes it on."""
        self.group("room-{name}").send(message, exclude=self.websocket)

    def tick(self) -> None:
        """Counts."""
        self.minutes += 1
        self.websocket.send(f"minute {self.minutes}")

    def disconnect(self, code: int, reason: str) -> None:
        """Tells the others."""
        self.group("room-{name}").send_json({"left": code, "why": reason})


class Texts(WebSocketHandler):
    """Whose clients send text alone."""

    def receive(self, message: str) -> None:
        """Sends it back in capitals."""
        self.websocket.send(message.upper())


class TextsOfMembers(LoginRequiredMixin, Texts):
    """Behind a mixin of Django's views."""


class AsyncTexts(WebSocketHandler):
    """The same, for an event loop."""

    async def receive(self, message: str) -> None:
        """Sends it back in capitals."""
        await self.websocket.asend(message.upper())


class AsyncRoom(WebSocketHandler):
    """The methods are coroutine functions."""

    async def connect(self) -> HttpResponse | None:
        """May refuse."""
        return HttpResponse(status=403) if self.request.GET.get("page") else None

    async def receive(self, message: str | bytes) -> None:
        """Sends it back."""
        await self.websocket.asend(message)

    async def tick(self) -> None:
        """Never called: `every` is not set."""

    async def disconnect(self, code: int, reason: str) -> None:
        """Nothing to do."""
