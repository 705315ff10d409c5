"""Handlers that survive their process; each shows one behaviour."""

from __future__ import annotations

import asyncio
import json
import os
import threading
import time
from pathlib import Path
from typing import Any

from asgiref.sync import markcoroutinefunction
from django.contrib.auth import get_user_model
from django.contrib.auth.models import AnonymousUser
from django.http import HttpResponse

from dwebsocket import ConnectionClosed, WebSocketHandler
from dwebsocket.rooms import Room

_VERSION = os.environ.get("PROJECT_VERSION_FILE")


def version() -> str | None:
    """Return what stands in a file now: the version of the code that this process has loaded."""
    if _VERSION is None:
        return None
    return Path(_VERSION).read_text()


class Counting(WebSocketHandler):
    """Answer each message with its number, this process, and itself."""

    survives = True
    version = version()

    def connect(self) -> None:
        """Begin to count."""
        self.state["number"] = 0
        self.state["resumed"] = 0

    def resumed(self) -> None:
        """Count the processes."""
        self.state["resumed"] += 1

    def receive(self, message: str | bytes) -> None:
        """Send it back behind a text about it."""
        self.state["number"] += 1
        facts = f"{self.state['number']} {os.getpid()} {self.state['resumed']}"
        self.websocket.send_text(facts)
        send = self.websocket.send_text if isinstance(message, str) else self.websocket.send_bytes
        send(message)

    def disconnect(self, code: int, reason: str) -> None:
        """Say so in the log, where tests find it."""
        print("disconnect", code, flush=True)


class Pumped(Counting):
    """A thread sends numbers until it cannot."""

    def receive(self, message: str | bytes) -> None:
        """Start the thread, or answer."""
        if message == "pump":
            # A daemon, as the thread that starts it is, would end with the process and say nothing.
            threading.Thread(target=self._pump, daemon=False).start()
        else:
            super().receive(message)

    def _pump(self) -> None:
        number = 0
        try:
            while self.websocket.send(str(number)):
                number += 1
                time.sleep(0.001)
            print("refused", number, flush=True)
        except ConnectionClosed as error:
            print("raised", number, error.code, flush=True)


class AsyncCounting(Counting):
    """The same in an event loop."""

    async def connect(self) -> None:
        """Begin to count."""
        super().connect()

    async def resumed(self) -> None:
        """Count the processes."""
        super().resumed()

    async def receive(self, message: str | bytes) -> None:
        """Send it back behind a text about it."""
        self.state["number"] += 1
        facts = f"{self.state['number']} {os.getpid()} {self.state['resumed']}"
        await self.websocket.asend_text(facts)
        if isinstance(message, str):
            await self.websocket.asend_text(message)
        else:
            await self.websocket.asend_bytes(message)

    async def disconnect(self, code: int, reason: str) -> None:
        """Say so in the log, where tests find it."""
        super().disconnect(code, reason)


class Grouped(Counting):
    """In a group, on threads."""

    groups = ("all",)


class AsyncGrouped(AsyncCounting):
    """In a group that it joins later, in an event loop."""

    async def receive(self, message: str | bytes) -> None:
        """Join with the first message."""
        if not self.state["number"]:
            await self.websocket.ajoin("all")
        await super().receive(message)


class Kept(Counting):
    """In a group that has a history."""

    groups = ("kept",)


class AsyncNumbered(AsyncCounting):
    """In such a group, with the numbers of its messages, in an event loop."""

    async def receive(self, message: str | bytes) -> None:
        """Join with the first message."""
        if not self.state["number"]:
            await self.websocket.ajoin("kept", numbered=True)
        await super().receive(message)


class Present(Counting):
    """Seen by others in a group, and told of them."""

    groups = ("present",)

    @staticmethod
    def presence(request: Any) -> dict[str, str]:
        """Say who it is."""
        return {"name": request.GET.get("name", "")}


class Watching(AsyncCounting):
    """Told of others in that group, and not seen by them."""

    async def receive(self, message: str | bytes) -> None:
        """Join with the first message."""
        if not self.state["number"]:
            await self.websocket.ajoin("present", presence="watch")
        await super().receive(message)


class Talk(Room):
    """A room whose users are known, with events that need no server."""

    name = "talk-<int:pk>"
    presence = True
    events = ("typing",)
    version = version()

    def info(self) -> dict[str, Any]:
        """Say what it is."""
        return {"kind": "talk"}

    def joined(self) -> None:
        """Begin to count."""
        self.state = {"count": 0, "resumed": 0}

    def resumed(self) -> None:
        """Count the processes."""
        self.state["resumed"] += 1

    def receive(self, event: str, data: Any) -> dict[str, Any]:
        """Answer with the number, this process, and the room."""
        self.state["count"] += 1
        return {**self.state, "process": os.getpid(), "room": self.name}

    def left(self) -> None:
        """Say so in the log, where tests find it."""
        print("left", self.name, flush=True)


class Plain(Talk):
    """A room without presence."""

    name = "plain-<int:pk>"
    presence = False


class Named(Plain):
    """A room that names its group: some have their own name."""

    name = "named-<int:pk>"

    def group_name(self) -> str:
        """Return its own name, or another one."""
        return self.name if self.kwargs["pk"] < 10 else f"group-{self.kwargs['pk']}"


class AsyncTalk(Talk):
    """The same with a coroutine function, so that its handler lives in an event loop."""

    async def receive(self, event: str, data: Any) -> dict[str, Any]:
        """Answer as above."""
        return super().receive(event, data)


class Forgetful(Talk):
    """A room that wants nothing of the history of its group."""

    history = False


class Settled(Plain):
    """A room whose connections do not move."""

    survives = False


class MixedCounting(AsyncCounting):
    """At home in an event loop, with methods on threads."""

    def resumed(self) -> None:
        """Count the processes."""
        self.state["resumed"] += 1


class Asked(WebSocketHandler):
    """Answer each message with what its request says, and where it runs."""

    survives = True

    def receive(self, message: str) -> None:
        """Tell it as JSON."""
        self.websocket.send_text(json.dumps(self.facts()))

    def facts(self) -> dict[str, Any]:
        """Return it."""
        request = self.request
        return {
            "kind": type(request).__name__,
            "path": request.get_full_path(),
            "names": [request.path, request.path_info, request.method, self.kwargs["name"]],
            "query": dict(request.GET),
            "uri": request.build_absolute_uri(),
            "address": request.META["REMOTE_ADDR"],
            "headers": {
                name: value
                for name, value in request.headers.items()
                if not name.startswith(("Sec-", "Content-"))
            },
            "process": os.getpid(),
            "is_main": threading.current_thread() is threading.main_thread(),
        }


class AsyncAsked(Asked):
    """The same in an event loop."""

    async def receive(self, message: str) -> None:
        """Tell it as JSON."""
        await self.websocket.asend_text(json.dumps(self.facts()))


class Ticking(Counting):
    """Send the number of each tick."""

    every = 0.2

    def tick(self) -> None:
        """Count it."""
        self.state["ticks"] = self.state.get("ticks", 0) + 1
        self.websocket.send_text(f"tick {self.state['ticks']}")


class Addressed(WebSocketHandler):
    """Answer each message with what middleware has made of the request, and the opening."""

    survives = True

    def receive(self, message: str) -> None:
        """Tell it as JSON."""
        websocket, request = self.websocket, self.request
        facts = [websocket.remote_address, request.path, request.tenant, request.META["USER_NAME"]]
        assert websocket.opened_at is not None
        websocket.send_text(json.dumps([*facts, websocket.opened_at.isoformat()]))


def from_proxy(get_response: Any) -> Any:
    """Middleware that believes a proxy, and has a tenant in the path behind it."""

    def respond(request: Any) -> Any:
        if "HTTP_X_FORWARDED_FOR" not in request.META:
            return get_response(request)
        *rest, address = request.META["HTTP_X_FORWARDED_FOR"].split(", ")
        request.META |= {"REMOTE_ADDR": address, "HTTP_X_FORWARDED_FOR": ", ".join(rest)}
        request.META["USER_NAME"] = "Żółć"
        _, request.tenant, path = request.path_info.split("/", 2)
        request.META["PATH_INFO"] = request.path_info = request.path = f"/{path}"
        return get_response(request)

    return respond


def of_the_loop(get_response: Any) -> Any:
    """Async middleware with a client that is bound to the event loop of the server."""

    async def respond(request: Any) -> Any:
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError("this is another event loop")
        return await get_response(request)

    return markcoroutinefunction(respond)


of_the_loop.sync_capable, of_the_loop.async_capable = False, True  # type: ignore[attr-defined]


def maintenance(get_response: Any) -> Any:
    """Middleware of a version that answers nothing but 503."""
    is_on = version() == "maintenance"
    return lambda request: HttpResponse(status=503) if is_on else get_response(request)


def session_first(get_response: Any) -> Any:
    """Middleware that asks for the user of the session."""

    def respond(request: Any) -> Any:
        assert request.user.pk is None or request.user.is_authenticated
        return get_response(request)

    return respond


def tokens(get_response: Any) -> Any:
    """Middleware that takes the user whose name is a token, until tokens have ended."""

    def respond(request: Any) -> Any:
        if name := request.GET.get("token"):
            if version() != "tokens ended":
                request.user = get_user_model().objects.get_or_create(username=name)[0]
            elif request.GET["then"] == "401":
                request.user = AnonymousUser()
                return HttpResponse(status=401)
        return get_response(request)

    return respond


class Failing(Counting):
    """Fail where it goes on."""

    def resumed(self) -> None:
        """Let an exception through."""
        raise ValueError("not here")


class BadState(Counting):
    """Keep what cannot move."""

    def connect(self) -> None:
        """Keep an object."""
        super().connect()
        self.state["object"] = object()


class Incomparable(str):
    """A text that cannot be compared with another one."""

    __slots__ = ()
    __hash__ = str.__hash__

    def __eq__(self, other: object) -> bool:
        """Fail."""
        raise ValueError("no comparison")


class RaisingState(Counting):
    """Keep what fails when it is looked at."""

    def connect(self) -> None:
        """Keep a text that cannot be compared."""
        super().connect()
        self.state["text"] = Incomparable("")


class Slow(Counting):
    """Take long for a message."""

    def receive(self, message: Any) -> None:
        """Answer after so many seconds."""
        super().receive("begun")
        time.sleep(float(message))
        super().receive(message)


class AsyncSlow(AsyncCounting):
    """The same in an event loop."""

    async def receive(self, message: Any) -> None:
        """Answer after so many seconds."""
        await super().receive("begun")
        await asyncio.sleep(float(message))
        await super().receive(message)


class Staying(Counting):
    """Not one of those that move."""

    survives = False

    def connect(self) -> None:
        """Keep the same in an attribute."""
        self.state = {}
        super().connect()
