"""
A connection whose messages are announced by the signal ``websocket_message``.

A :class:`~dwebsocket.websocket.WebSocket` uses it in place of its connection if the signal has
receivers when it opens. So messages of all others pass no code of signals.
"""

from __future__ import annotations

from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, cast
from weakref import ref

from dwebsocket import signals
from dwebsocket.api.waiting.loop_hub import Again

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from django.http import HttpRequest

    from dwebsocket import _core
    from dwebsocket.api.arguments import Message

    FindHub = Callable[[], _core.Hub]

# The argument `text_as_bytes`: receivers get text as `str`.
_EXACT = False


class HasRequest(Protocol):
    """The part of a WebSocket that is needed here."""

    _view_request: HttpRequest | None


class AnnouncingConnection:
    """
    A connection that sends the signal for each message that is taken. Calls of others are its own.

    Attributes:
        announced: The connection itself.
    """

    def __init__(self, connection: _core.Connection, websocket: HasRequest) -> None:
        self.announced = connection
        # The WebSocket refers to this object: a strong reference back would be a cycle.
        self._websocket = ref(websocket)
        # Messages whose signal was sent, and whose caller was cancelled meanwhile: they come next.
        self._kept: deque[Message] = deque()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.announced, name)

    def waiting(self) -> tuple[int, bool]:
        """Returns the number of messages that wait, and whether the end follows them."""
        messages, ended = self.announced.waiting()
        return len(self._kept) + messages, ended

    def pop(self, text_as_bytes: bool, /) -> Message | None:
        """Returns a message that waits and sends its signal; None without one."""
        return self._take(partial(self.announced.pop, _EXACT), text_as_bytes)

    def take(self, timeout: float | None, text_as_bytes: bool) -> Message | None:
        """Waits for a message and sends its signal; None when the time was up."""
        return self._take(partial(self.announced.take, timeout, _EXACT), text_as_bytes)

    def take_coarse(self, time: float, text_as_bytes: bool, /) -> Message | None:
        """Waits as :meth:`take`, perhaps a little longer than ``time``."""
        return self._take(partial(self.announced.take_coarse, time, _EXACT), text_as_bytes)

    def next(self, find_hub: FindHub, /) -> Awaitable[Message]:
        """Returns an awaitable: of the next message, after its signal."""
        following = self.announced.next(find_hub)

        async def take() -> Message:
            return self._kept.popleft() if self._kept else await self._told_of(await following)

        return Again(take)

    async def next_now(self) -> Message | None:
        """Returns a message that waits, after its signal; None without one."""
        if self._kept:
            return self._kept.popleft()
        message = await self.announced.next_now()
        return None if message is None else await self._told_of(message)

    def _take(self, take: Callable[[], Message | None], text_as_bytes: bool) -> Message | None:
        if self._kept:
            message: Message | None = self._kept.popleft()
        elif (message := take()) is not None:
            signals.send(signals.websocket_message, *self._senders(), message=message)
        return message.encode() if text_as_bytes and isinstance(message, str) else message

    async def _told_of(self, message: Message) -> Message:
        """Returns ``message`` after its signal."""
        try:
            await signals.asend(signals.websocket_message, *self._senders(), message=message)
        except BaseException:
            self._kept.append(message)
            raise
        return message

    def _senders(self) -> tuple[HasRequest | None, HttpRequest | None]:
        websocket = self._websocket()
        return websocket, None if websocket is None else websocket._view_request


def announced(connection: _core.Connection, websocket: HasRequest) -> _core.Connection:
    """Returns ``connection``, or one that announces its messages if the signal has receivers."""
    if not signals.websocket_message.receivers:
        return connection
    return cast("_core.Connection", AnnouncingConnection(connection, websocket))
