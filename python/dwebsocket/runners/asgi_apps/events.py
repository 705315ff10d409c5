"""
The events between an ASGI application and one WebSocket: ``receive``, ``send``, and their order.

An application is given both as the ASGI specification has them. This module checks which event may
come when, and which values it must have; a :class:`Peer` carries the events out.
"""

from __future__ import annotations

import asyncio
import logging
from enum import Enum
from typing import TYPE_CHECKING, Any, Protocol

from dwebsocket.exceptions import ConnectionClosed, UsageError
from dwebsocket.telemetry import clock

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from dwebsocket.api.arguments import Message
    from dwebsocket.servers.contract import Event
    from dwebsocket.websocket import WebSocket

    Headers = list[tuple[str, str]]
    Application = Callable[..., Awaitable[object]]

_log = logging.getLogger("dwebsocket")

# Seconds after its `disconnect` in which an application may wait for further events; and before the
# next time, for one that goes on then.
_LAST_S, _PAUSE_S = 5.0, 1.0
_FIRST_STATUS, _LAST_STATUS = 200, 599


class Peer(Protocol):
    """The connection that the events are about, before and after it is open."""

    @property
    def websocket(self) -> WebSocket | None:
        """The WebSocket; there may be none before it is open."""

    async def accept(self, subprotocol: str | None, headers: Headers) -> None:
        """
        Opens it. Waits until it is open, or lost.

        Raises:
            ValueError: A subprotocol that the client does not offer, or a header that cannot be.
        """

    async def reject(self) -> None:
        """Refuses it with 403."""

    async def respond(self, status: int, headers: Headers, body: bytes) -> None:
        """
        Refuses it with a response.

        Raises:
            ValueError: A header that no response may have.
        """

    async def receive(self) -> Message:
        """
        Returns the next message, also where that is called before it is open.

        Raises:
            ConnectionClosed: No message can come any more.
        """

    async def send(self, message: Message) -> None:
        """Sends a message; decides itself what happens when the client has gone."""

    def send_here(self, message: Message) -> bool:
        """
        Sends an event on a thread, and never waits.

        Returns False when the message waits for room: see ``WebSocket._send_beyond``.
        """

    def drop(self, message: Message) -> None:
        """Is given a message after the application's own close, which no client gets."""

    async def close(self, code: int, reason: str) -> None:
        """
        Closes it, if it is open.

        Raises:
            ValueError: A code that must not be sent, or a reason that does not fit.
        """


class Stage(Enum):
    """How far an application is; the values say it in messages of errors."""

    UNDECIDED = "before websocket.accept"
    OPEN = "after websocket.accept"
    RESPONDING = "within a websocket.http.response"
    OVER = "after websocket.close or a whole websocket.http.response"


# Without a look at the class of an enumeration for each message.
_OPEN = Stage.OPEN
_ALLOWED = {
    Stage.UNDECIDED: ("websocket.accept", "websocket.close", "websocket.http.response.start"),
    Stage.OPEN: ("websocket.send", "websocket.close"),
    Stage.RESPONDING: ("websocket.http.response.body",),
    # No errors of the application's: a message of a group may come just after the close.
    Stage.OVER: ("websocket.send", "websocket.close"),
}


class Events:
    """
    The ``receive`` and the ``send`` of one application. For the tasks of one event loop.

    Attributes:
        stage: How far the application is.
        peer: The connection.
        is_of_consumer: Whether a consumer of Channels uses them: it learns of the client's end by
            ``receive``.
        send_message: Sends a message of an open connection, by default :meth:`Peer.send`.
        messages: Gives the next message of an open connection each time it is awaited, if there is
            such an object: with less work than :meth:`Peer.receive`, which is called at the end.
    """

    def __init__(self, peer: Peer) -> None:
        """Begins before ``websocket.connect``."""
        self.stage = Stage.UNDECIDED
        self.peer = peer
        self.is_of_consumer = False
        self.send_message: Callable[[Message], Awaitable[None]] = peer.send
        self.messages: Awaitable[Message] | None = None
        self._is_connected = False
        # When an application that asks for more events is ended; None until its `disconnect`.
        self._ends_at: float | None = None
        self._was_ended = False
        self._response: tuple[int, Headers] = (0, [])
        self._body: list[bytes] = []

    @property
    def is_decided(self) -> bool:
        """Whether the application has accepted or refused the connection."""
        return self.stage in (Stage.OPEN, Stage.OVER)

    async def run(self, application: Application, scope: dict[str, Any]) -> object:
        """Runs an application, and returns what that returns; None if :meth:`receive` ended it."""
        try:
            return await application(scope, self.receive, self.send)
        except asyncio.CancelledError:
            if not self._was_ended:
                raise
            return None

    async def receive(self) -> Event:
        """
        Returns the next event: ``connect`` first, then messages, and ``disconnect`` once.

        Cancelling it loses no event.

        Raises:
            CancelledError: Nothing follows the ``disconnect``, and the application has waited for
                it. So it ends where it asks, not in the middle of other work.
        """
        if not self._is_connected:
            self._is_connected = True
            return {"type": "websocket.connect"}
        try:
            if self.messages is not None:
                return event_of(await self.messages)
        except StopAsyncIteration:
            # The peer knows how it ended.
            pass
        if self._ends_at is None:
            try:
                return event_of(await self.peer.receive())
            except ConnectionClosed as end:
                # Another task may have received it meanwhile.
                if self._ends_at is None:
                    self._ends_at = clock.now() + _LAST_S
                    return {"type": "websocket.disconnect", "code": end.code, "reason": end.reason}
        await asyncio.sleep(self._ends_at - clock.now())
        self._ends_at, self._was_ended = clock.now() + _PAUSE_S, True
        _log.debug("An ASGI application waited for events after its websocket.disconnect")
        raise asyncio.CancelledError

    async def send(self, event: Event) -> None:
        """
        Does what the application's event says, and waits as long as that takes.

        Raises:
            UsageError: An event that is unknown, or may not come now, or lacks something.
            TypeError, ValueError: A value that it may not have.
        """
        kind = event.get("type")
        if kind == "websocket.send" and self.stage is _OPEN:
            await self.send_message(message_of(event))
            return
        if kind not in _ALLOWED[self.stage]:
            expected = " or ".join(_ALLOWED[self.stage])
            raise UsageError(
                f"an ASGI application sent {kind!r} {self.stage.value}: expected is {expected}"
            )
        if kind == "websocket.send":
            self.peer.drop(message_of(event))
        elif kind == "websocket.accept":
            await self._accept(event)
        elif kind == "websocket.close":
            await self._close(event)
        elif kind == "websocket.http.response.start":
            self._response = _status_of(event), _headers_of(event)
            self.stage = Stage.RESPONDING
        else:
            await self._respond(event)

    async def _accept(self, event: Event) -> None:
        subprotocol = event.get("subprotocol")
        if not isinstance(subprotocol, str | None):
            raise TypeError(f"a subprotocol must be a str, not {type(subprotocol).__name__}")
        headers = _headers_of(event)
        self.stage = Stage.OPEN
        try:
            await self.peer.accept(subprotocol, headers)
        except ValueError:
            # Nothing was decided: the application may still refuse.
            self.stage = Stage.UNDECIDED
            raise

    async def _close(self, event: Event) -> None:
        if self.stage is Stage.UNDECIDED:
            self.stage = Stage.OVER
            await self.peer.reject()
        elif self.stage is Stage.OPEN:
            code, reason = event.get("code"), event.get("reason")
            await self.peer.close(1000 if code is None else code, reason or "")
            self.stage = Stage.OVER

    async def _respond(self, event: Event) -> None:
        self._body.append(_bytes_of(event.get("body", b""), "the body of a response"))
        if not event.get("more_body", False):
            self.stage = Stage.OVER
            try:
                await self.peer.respond(*self._response, b"".join(self._body))
            except ValueError:
                self.stage = Stage.RESPONDING
                raise


def event_of(message: Message) -> Event:
    """Returns the event for a message."""
    kind = "text" if isinstance(message, str) else "bytes"
    return {"type": "websocket.receive", kind: message}


def message_of(event: Event) -> Message:
    """
    Returns the message of a ``websocket.send``.

    Raises:
        UsageError: It has none, or two.
        TypeError: One of a wrong type.
    """
    text, data = event.get("text"), event.get("bytes")
    if (text is None) is (data is None):
        raise UsageError("a 'websocket.send' has either text or bytes")
    if text is None:
        return _bytes_of(data, "bytes of a 'websocket.send'")
    if not isinstance(text, str):
        raise TypeError(f"text of a 'websocket.send' must be a str, not {type(text).__name__}")
    return text


def _bytes_of(value: Any, what: str) -> bytes:
    if isinstance(value, bytes):
        return value
    if isinstance(value, (bytearray, memoryview)):
        return bytes(value)
    raise TypeError(f"{what} must be bytes, not {type(value).__name__}")


def _status_of(event: Event) -> int:
    status = event.get("status")
    if isinstance(status, bool) or not isinstance(status, int):
        raise TypeError(f"the status of a response must be an int, not {type(status).__name__}")
    if not _FIRST_STATUS <= status <= _LAST_STATUS:
        raise ValueError(f"a response has a status from 200 to 599, not {status}")
    return status


def _headers_of(event: Event) -> Headers:
    pairs: Iterable[tuple[Any, Any]] = event.get("headers") or ()
    return [
        (
            _bytes_of(name, "the name of a header").decode("latin-1"),
            _bytes_of(value, "the value of a header").decode("latin-1"),
        )
        for name, value in pairs
    ]
