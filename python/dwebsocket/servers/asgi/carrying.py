"""
A connection that an ASGI server carries: the engine has all but its frames.

Two tasks of the server's loop move the messages: one brings those that the server has, as long as
there is room for them, and another one sends while there is something to send.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from dwebsocket import _core
from dwebsocket.api.base import GOING_AWAY, RESTARTING
from dwebsocket.api.waiting import loop_hub
from dwebsocket.compat import uvicorn

if TYPE_CHECKING:
    from dwebsocket.servers.contract import Event, Receive, Send
    from dwebsocket.servers.handshake import Opening

_log = logging.getLogger("dwebsocket")

_NO_STATUS, _ABNORMAL = 1005, 1006
# Time for the close frame to a client when the server cancels its connection.
_CLOSE_FRAME_S = 0.5
# Smaller messages are not looked for in the server's own buffer.
_LARGE_BYTES = 4096
# Seconds between two checks whether the client has read.
_LOOK_AT_CLIENT_S = 0.5


class Carriage:
    """
    Moves the messages of one connection. Belongs to the server's loop.

    Attributes:
        connection: The engine's.
    """

    __slots__ = (
        *("__weakref__", "connection", "_carrier", "_gone", "_hub", "_loop", "_reader"),
        *("_receive", "_room", "_send", "_server_bytes", "_token", "_writer"),
    )

    def __init__(self, receive: Receive, send: Send, accept: Event, opening: Opening) -> None:
        """Sends ``accept`` before anything else. ``OSError`` if the engine cannot be started."""
        self._loop = asyncio.get_running_loop()
        self._receive = receive
        self._send = send
        self._hub = loop_hub.current()
        self._token = self._hub.call_on(self._on_news)
        # Set while the reader waits for room.
        self._room: asyncio.Future[None] | None = None
        # Bytes that wait in the server's transport.
        self._server_bytes = 0
        try:
            _, _, options, permit, memberships = opening
            self.connection, self._carrier = _core.open_carried(
                self._hub.core, self._token, permit, options.for_engine, memberships
            )
        except BaseException:
            self._hub.forget(self._token)
            raise
        self._gone: asyncio.Future[None] = self._loop.create_future()
        self._writer: asyncio.Task[None] | None = self._loop.create_task(self._write(accept))
        self._reader = self._loop.create_task(self._read())
        if _core.is_leaving():
            # The handshake can no longer be refused.
            self.connection.close(*RESTARTING)

    async def serve(self) -> None:
        """
        Waits until the connection is over; the ASGI application returns after that.

        Cancelling it closes the connection with 1001.
        """
        try:
            # Do not await the future itself: a cancellation would cancel it.
            await asyncio.wait({self._gone})
        except asyncio.CancelledError:
            self.connection.close(*GOING_AWAY)
            await asyncio.wait({self._gone}, timeout=_CLOSE_FRAME_S)
            raise
        finally:
            self._carrier.leave(_ABNORMAL, "")
            self._hub.forget(self._token)
            self._reader.cancel()
            if self._writer is not None:
                self._writer.cancel()
            if self._carrier.is_shed:
                # The bytes in the server's transport are released, too.
                uvicorn.abort(self._send)
            self._server_bytes = 0
            self._carrier.note_in_server(0)
            # Django's request is in a reference cycle and may refer to this object, so both stay
            # until the garbage collector runs. Drop the server's objects now.
            del self._receive, self._send, self._reader

    def _on_news(self) -> None:
        """Called when there is something to send, room to bring more, or the end."""
        if self._carrier.is_over:
            loop_hub.settle(self._gone)
            return
        if self._room is not None and self._carrier.has_room():
            loop_hub.settle(self._room)
        if self._writer is None:
            self._writer = self._loop.create_task(self._write())

    async def _read(self) -> None:
        code, reason = _ABNORMAL, ""
        try:
            while (event := await self._receive())["type"] != "websocket.disconnect":
                if event["type"] == "websocket.receive":
                    text = event.get("text")
                    has_room = self._carrier.bring(event["bytes"] if text is None else text)
                    # Do not hold the message while waiting for the next one.
                    del event, text
                    if not has_room:
                        await self._await_room()
            code = event.get("code") or _NO_STATUS
            reason = event.get("reason") or ""
        except Exception as error:
            _log.debug("The server failed to read from a WebSocket: %r", error)
        self._carrier.leave(code, reason)

    async def _await_room(self) -> None:
        try:
            while not self._carrier.has_room():
                self._room = self._loop.create_future()
                await self._room
        finally:
            self._room = None

    async def _write(self, event: Event | None = None) -> None:
        try:
            event = event or self._carrier.take()
            while event is not None:
                if event["type"] == "websocket.close":
                    await self._send_close_and_read_on(event)
                else:
                    await self._send(event)
                    # Counts the bytes that the server has yet to send.
                    size = len(event.get("text") or event.get("bytes") or "")
                    if size >= _LARGE_BYTES or self._server_bytes:
                        self._count_server_bytes()
                # Do not hold the message while the next one is looked for.
                del event
                event = self._carrier.take()
        except Exception as error:
            _log.debug("The server failed to write to a WebSocket: %r", error)
            self._carrier.break_off()
        finally:
            self._writer = None

    def _count_server_bytes(self) -> None:
        before, self._server_bytes = self._server_bytes, uvicorn.queued(self._send)
        self._carrier.note_in_server(self._server_bytes)
        if self._server_bytes and not before:
            self._loop.call_later(_LOOK_AT_CLIENT_S, self._look_at_client)

    def _look_at_client(self) -> None:
        if self._server_bytes and not self._gone.done():
            self._server_bytes = 0
            self._count_server_bytes()

    async def _send_close_and_read_on(self, event: Event) -> None:
        # granian sends no close frame while a task waits in `receive`.
        self._reader.cancel()
        await asyncio.wait({self._reader})
        await self._send_close(event)
        if not self._gone.done():
            # Some servers stop reading when no task takes what they have read.
            self._reader = self._loop.create_task(self._read())

    async def _send_close(self, event: Event) -> None:
        code = event["code"]
        try:
            await self._send(event)
        except Exception:
            if code == 1000 or code >= 3000:
                raise
            # daphne takes no other codes from applications: its clients see 4011 for 1011.
            await self._send({**event, "code": code + 3000})
