"""
What connects a test's client with the server that it feigns where there is no engine: events.

Its client has the calls of a socket, for events in place of bytes; its server has the ``receive``
and ``send`` of an ASGI application.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from dwebsocket.api.waiting.loop_hub import settle, settle_later

if TYPE_CHECKING:
    from dwebsocket.servers.asgi.events import Event

_NORMAL, _ABNORMAL = 1000, 1006


class Link:
    """One connection. The server's calls belong to its loop, the client's to one thread or task."""

    def __init__(self) -> None:
        """Opens it. To be called in the server's loop."""
        self._loop = asyncio.get_running_loop()
        self._to_server: asyncio.Queue[Event] = asyncio.Queue()
        self._to_client: deque[Event] = deque()
        self._news = threading.Condition()
        self._listener: asyncio.Future[None] | None = None
        # The first event that ends it. The client learns of it when nothing is left of it.
        self._end: Event | None = None

    # -- the server ------------------------------------------------------------------------------

    async def receive(self) -> Event:
        """Returns the next event of the client."""
        return await self._to_server.get()

    async def tell(self, event: Event) -> None:
        """Takes an event of the application. A close is answered, as by every client."""
        if event["type"] == "websocket.close":
            end = {"code": event.get("code", _NORMAL), "reason": event.get("reason") or ""}
            self._finish(end, {**end, "reason": ""})
        else:
            self._deliver(event)

    def over(self) -> None:
        """The application has ended."""
        self._deliver(self._end or {"type": "websocket.close", "code": _ABNORMAL, "reason": ""})

    def _finish(self, for_client: Event, for_server: Event) -> None:
        if self._end is None:
            self._end = {**for_client, "type": "websocket.close"}
            self._to_server.put_nowait({**for_server, "type": "websocket.disconnect"})

    def _deliver(self, event: Event) -> None:
        with self._news:
            self._to_client.append(event)
            self._news.notify_all()
            if (listener := self._listener) is not None:
                with suppress(RuntimeError):
                    listener.get_loop().call_soon_threadsafe(settle, listener)

    def _take(self, event: Event) -> None:
        if event["type"] == "websocket.disconnect":
            self._finish({**event, "reason": ""}, event)
        else:
            self._to_server.put_nowait(event)

    # -- the client ------------------------------------------------------------------------------

    def exchange(self, wire: Any) -> None:
        """Sends and receives what is possible without waiting, by an :class:`~.EventWire`."""
        # A closed loop has no connection.
        with suppress(RuntimeError):
            while wire.outgoing:
                self._loop.call_soon_threadsafe(self._take, wire.outgoing.pop(0))
        while self._to_client and not wire.is_over:
            wire.feed(self._to_client.popleft())

    def close(self) -> None:
        """Ends it without a close, unless it has ended."""
        with suppress(RuntimeError):
            end = {"type": "websocket.disconnect", "code": _ABNORMAL}
            self._loop.call_soon_threadsafe(self._take, end)

    def wait(self, seconds: float) -> None:
        """Sleeps until there is an event, ``seconds`` at most."""
        with self._news:
            self._news.wait_for(lambda: self._to_client, seconds)

    async def await_news(self, seconds: float) -> None:
        """As :meth:`wait`, without blocking the event loop."""
        with self._news:
            if self._to_client:
                return
            self._listener = listener = asyncio.get_running_loop().create_future()
        cancel = settle_later(listener, seconds)
        try:
            await listener
        finally:
            cancel()
            self._listener = None
