"""
A connection on an ASGI server.

One coroutine for each connection, :meth:`AsgiConnection.serve`, runs as long as the connection; a
task reads the server's events into the inbox, and another one writes while there is something in
the outbox. All of them run in the server's event loop. The other methods may be called from any
thread: one lock guards the state, and only work for the loop is scheduled there.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import logging
import math
import sys
import threading
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from dwebsocket import _core
from dwebsocket.api.connection import refused_code
from dwebsocket.api.waiting import loop_hub, pings
from dwebsocket.api.waiting.waiter import no_room
from dwebsocket.compat import uvicorn
from dwebsocket.compat.asyncio import running_loop
from dwebsocket.exceptions import UnsupportedServer
from dwebsocket.servers import budget
from dwebsocket.servers.asgi.closing import OPEN
from dwebsocket.servers.asgi.events import size_of, to_event
from dwebsocket.servers.asgi.mailbox import GroupMailbox
from dwebsocket.servers.readiness import Readiness
from dwebsocket.telemetry import clock

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from dwebsocket.api.connection import By, FindHub, Message
    from dwebsocket.servers.asgi.events import Event, Receive, Send
    from dwebsocket.servers.rate import Meter

    Watches = list[tuple[loop_hub.LoopHub | _core.Hub, int]]

_log = logging.getLogger("dwebsocket")

# The same limit as in the engine's inbox.
_MAX_MESSAGES = 1024

_GOING_AWAY, _NO_STATUS, _ABNORMAL, _POLICY, _TOO_BIG, _RESTART, _TRY_AGAIN_LATER = (
    (1001, "going away"), 1005, 1006, 1008, 1009, 1012, 1013,
)  # fmt: skip
_MAX_REASON_BYTES = 123
# Longer timeouts count as no timeout: locks have a maximum, which is lower on some systems.
_FOREVER_S = 1e6
# Time for the close frame to a client when the server cancels its connection.
_CLOSE_FRAME_S = 0.5
# Seconds between two checks whether the client has read.
_LOOK_AT_CLIENT_S = 0.5
# An empty text, which shows a page that the connection lives.
_BEAT: Event = {"type": "websocket.send", "text": ""}
_NO_MEMORY = "the server is short of memory"

_ids = itertools.count(1)


class _Condition(threading.Condition):
    """A condition that knows how many threads sleep on it."""

    sleepers = 0

    def wait(self, timeout: float | None = None) -> bool:
        self.sleepers += 1
        try:
            return super().wait(timeout)
        finally:
            self.sleepers -= 1


class AsgiConnection:
    """See :class:`dwebsocket.api.connection.Connection`."""

    #: The engine knows nothing of it: see :func:`dwebsocket.telemetry.tally.is_kept`.
    is_kept = True

    def __init__(
        self,
        receive: Receive,
        send: Send,
        accept: Event,
        permit: _core.Permit,
        *,
        max_message_bytes: int,
        meter: Meter | None,
        receive_buffer_bytes: int,
        send_buffer_bytes: int,
        close_timeout: float,
    ) -> None:
        """Sends ``accept`` before anything else. To be called in the server's loop."""
        self.id = next(_ids)
        self._receive = receive
        self._send = send
        self._permit = permit.share()
        self._meter = meter
        self._max_message_bytes = max_message_bytes
        self._inbox_capacity = receive_buffer_bytes
        self._capacity = send_buffer_bytes
        self._close_timeout = close_timeout
        self._loop = asyncio.get_running_loop()

        lock = threading.Lock()
        # Both conditions use the same lock.
        self._arrived = _Condition(lock)
        self._room = _Condition(lock)

        # Each message with its size on the wire and in memory.
        self._inbox: deque[tuple[Message, int, int]] = deque()
        self._inbox_bytes = 0
        self._inbox_cost = 0
        # Messages that have come, and that were taken for the client.
        self._received = 0
        self._sent = 0
        self._received_bytes = 0
        self._sent_bytes = 0
        # The memory of the message that the view took last, and usually still holds.
        self._taken_cost = 0
        self._inbox_ended = False
        self._inbox_watches: Watches = []
        # Set while the reader waits for room in the inbox.
        self._paused: asyncio.Future[None] | None = None
        # The reader waits for this event while the process is at the limit of its memory.
        self._memory: loop_hub.LoopEvent | None = None

        # The first event stays, and its bytes count, until the server's `send` returns.
        self._outbox: deque[tuple[Event, int]] = deque()
        self._outbox_bytes = 0
        # Bytes of earlier messages that still wait in the server's transport.
        self._transport_bytes = 0
        self._outbox_watches: Watches = []
        self._share = budget.Share(budget.process, self)
        self._sealed = False
        self._writing = False
        self._writer: asyncio.Task[None] | None = None
        # Seconds without a message until a beat, where the client asked for that.
        self._beat_s: float | None = None
        self._last_sent_at = 0.0
        self._beat_timer: asyncio.TimerHandle | None = None

        self._end: tuple[int, str, By] | None = None
        self._ended_at = 0.0
        self._end_watches: list[tuple[_core.Hub, int]] = []

        self._readiness: Readiness | None = None
        self._is_end_read = False

        self._hub = loop_hub.current()
        # Made when the connection joins its first group.
        self._mailbox: GroupMailbox | None = None

        self._gone: asyncio.Future[None] = self._loop.create_future()
        self._reader = self._loop.create_task(self._read())
        OPEN.add(self)
        with self._room:
            self._put(accept, 0)
        if _core.is_leaving():
            # The handshake can no longer be refused, and `leave` may have read `OPEN` before this
            # connection was added: close it here.
            self.close(_RESTART, "restarting")

    # -- any thread -----------------------------------------------------------------------------

    def pop(self, text_as_bytes: bool, /) -> Message | None:
        """As :meth:`dwebsocket.api.connection.Connection.pop`."""
        return self.take(0, text_as_bytes) if self._inbox else None

    def owes_a_pause(self) -> bool:
        """Gives False: a task fills the inbox, so a view that never yields soon finds it empty."""
        return False

    def take(self, timeout: float | None, text_as_bytes: bool) -> Message | None:
        """As :meth:`dwebsocket.api.connection.Connection.take`."""
        with self._arrived:
            if timeout != 0 and not self._has_news():
                self._arrived.wait_for(self._has_news, _bounded(timeout))
            if not self._inbox:
                return None
            message, size, self._taken_cost = self._inbox.popleft()
            self._inbox_bytes -= size
            self._inbox_cost -= self._taken_cost
            self._count()
            self._update_readiness()
            if self._paused is not None and not self._is_full():
                self._resume_reading()
        return message.encode() if text_as_bytes and isinstance(message, str) else message

    def take_coarse(self, time: float, text_as_bytes: bool, /) -> Message | None:
        """As :meth:`take`: ends exactly after ``time``."""
        return self.take(time, text_as_bytes)

    def post(self, message: object, text_as_bytes: bool, sender: object, /) -> bool:
        """Gives False: each message has to go through the queue of :meth:`send`."""
        return False

    def send(
        self, message: Message, *, binary: bool | None = None, timeout: float | None = None
    ) -> bool:
        """
        As :meth:`dwebsocket.api.connection.Connection.send`, but the message is only queued here.

        Raises:
            SendTimeout: There was no room within ``timeout`` seconds.
        """
        event, size = to_event(message, binary=binary)
        with self._room:
            has_room = self._has_room(size)
            if not has_room and timeout is not None:
                if not self._room.wait_for(lambda: self._has_room(size), _bounded(timeout)):
                    raise no_room(timeout)
                has_room = True
            if has_room:
                return not self._sealed and self._put(event, size)
        self.close(_TRY_AGAIN_LATER, "too slow")
        return False

    def try_send(self, message: Message, *, binary: bool | None = None) -> bool | None:
        """As :meth:`dwebsocket.api.connection.Connection.try_send`."""
        event, size = to_event(message, binary=binary)
        with self._room:
            if not self._has_room(size):
                return None
            return not self._sealed and self._put(event, size)

    def send_beyond(self, message: Message, *, binary: bool | None = None) -> bool | None:
        """As :meth:`dwebsocket.api.connection.Connection.send_beyond`."""
        event, size = to_event(message, binary=binary)
        with self._room:
            has_room = self._has_room(size)
            is_sent = self._put(event, size)
        return is_sent if has_room else None

    def has_room(self) -> bool:
        """As :meth:`dwebsocket.api.connection.Connection.has_room`."""
        with self._room:
            return self._has_room(0)

    def close(self, code: int, reason: str) -> bool:
        """
        As :meth:`dwebsocket.api.connection.Connection.close`.

        Raises:
            ValueError: A code that must not be sent, or a reason that does not fit.
        """
        began = self.half_close(code, reason)
        with self._room:
            # A close that was begun before goes out as it was begun.
            if not self._sealed:
                self._put(self._close_event(), 0)
                self._sealed = True
            self._announce_room()
        return began

    def half_close(self, code: int, reason: str) -> bool:
        """
        As :meth:`dwebsocket.api.connection.Connection.half_close`.

        Raises:
            ValueError: A code that must not be sent, or a reason that does not fit.
        """
        if not _core.may_send_close_code(code):
            raise refused_code(code)
        if (length := len(reason.encode())) > _MAX_REASON_BYTES:
            raise ValueError(
                f"close reason has {length} bytes; at most {_MAX_REASON_BYTES} fit a close frame"
            )
        with self._room:
            began = self._end is None
            if began:
                self._end, self._ended_at = (code, reason, "local"), clock.now()
            self._end_inbox()
            self._announce_end()
        return began

    def _close_event(self) -> Event:
        assert self._end is not None
        code, reason, _ = self._end
        return {"type": "websocket.close", "code": code, "reason": reason}

    def discard(self) -> None:
        """As :meth:`dwebsocket.api.connection.Connection.discard`."""
        with self._arrived:
            self._drop_inbox()
            self._taken_cost = 0
            self._count()

    def shed(self) -> None:
        """
        Closes with 1013 and gives up what is held: see :mod:`dwebsocket.servers.budget`.

        A large message that is being sent is cut off. Then the client gets no close frame.
        """
        with self._room:
            self._drop_inbox()
            being_sent = self._outbox[0] if self._writing and self._outbox else None
            is_stuck = being_sent is not None and being_sent[1] > budget.SMALL_BYTES
            is_stuck = is_stuck or self._transport_bytes > budget.SMALL_BYTES
            close = self._outbox[-1][0] if self._outbox and self._sealed else None
            self._outbox.clear()
            self._outbox_bytes = 0
            if being_sent is not None and not is_stuck:
                self._outbox.append(being_sent)
                self._outbox_bytes = being_sent[1]
            if self._end is None:
                self._end = (_TRY_AGAIN_LATER, _NO_MEMORY, "local")
                self._ended_at = clock.now()
            if not self._sealed:
                close = self._close_event()
            if (
                close is not None
                and not is_stuck
                and (not being_sent or close is not being_sent[0])
            ):
                self._sealed = False
                self._put(close, 0)
            self._sealed = True
            self._announce_room()
            self._announce_end()
            self._count()
        self._in_loop(self._give_up if is_stuck else self._give_up_soon)

    def waiting(self) -> tuple[int, bool]:
        """As :meth:`dwebsocket.api.connection.Connection.waiting`."""
        with self._arrived:
            return len(self._inbox), self._inbox_ended

    def end(self) -> tuple[int, str, By] | None:
        """As :meth:`dwebsocket.api.connection.Connection.end`."""
        return self._end

    def ended_for(self) -> float | None:
        """As :meth:`dwebsocket.api.connection.Connection.ended_for`."""
        return None if self._end is None else clock.now() - self._ended_at

    def messages(self) -> tuple[int, int]:
        """As :meth:`dwebsocket.api.connection.Connection.messages`."""
        return self._received, self._sent

    def traffic(self) -> tuple[int, int, int, int, int, int, int]:
        """
        As :meth:`dwebsocket.api.connection.Connection.traffic`.

        Bytes are those of messages: only the server sees what is on the wire.
        """
        with self._room:
            carried = self._received, self._sent, self._received_bytes, self._sent_bytes
            return *carried, len(self._inbox), self._inbox_bytes, self._outbox_bytes

    def is_awaited(self) -> bool:
        """Whether a caller waits now, for news or for room. For tests."""
        with self._arrived:
            watches = self._inbox_watches or self._outbox_watches
            return bool(watches or self._arrived.sleepers or self._room.sleepers)

    def watch_end(self, hub: _core.Hub, token: int) -> None:
        """As :meth:`dwebsocket.api.connection.Connection.watch_end`."""
        with self._arrived:
            if self._end is None:
                self._end_watches.append((hub, token))
                return
        hub.announce(token)

    def await_news(self, time: float) -> None:
        """As :meth:`dwebsocket.api.connection.Connection.await_news`."""
        with self._arrived:
            self._arrived.wait_for(self._has_news, _bounded(time))

    def descriptor(self) -> int | None:
        """
        As :meth:`dwebsocket.api.connection.Connection.descriptor`.

        Raises:
            OSError: The process has no descriptor left.
        """
        with self._arrived:
            if self._readiness is None:
                self._readiness = Readiness()
                self._update_readiness()
            return self._readiness.fileno()

    def mark_end_read(self) -> None:
        """As :meth:`dwebsocket.api.connection.Connection.mark_end_read`."""
        with self._arrived:
            self._is_end_read = True
            self._update_readiness()

    def close_descriptor(self) -> None:
        """As :meth:`dwebsocket.api.connection.Connection.close_descriptor`."""
        with self._arrived:
            readiness, self._readiness = self._readiness, None
        if readiness is not None:
            readiness.close()

    def ping(self, payload: bytes) -> bool:
        """Gives False, and sends nothing: ASGI has no pings of applications."""
        return False

    def pong(self, payload: bytes) -> bool:
        """Gives False, and sends nothing: ASGI has no pongs of applications."""
        return False

    #: Always None: ASGI has no event for a pong.
    latency: float | None = None

    def begin_beat(self, seconds: float) -> None:
        """As :meth:`dwebsocket.api.connection.Connection.begin_beat`."""
        with self._room:
            if self._beat_s is not None:
                return
            self._beat_s, self._last_sent_at = seconds, clock.now()
        self._in_loop(self._look_at_beat)

    def begin_ping(self) -> _core.Ping | None:
        """
        Fails: ASGI has no pings of applications.

        Raises:
            UnsupportedServer: Always.
        """
        raise UnsupportedServer(
            "ping() is not possible behind this ASGI server: it keeps the connection and pings by "
            "itself, and ASGI has no event for that. There, let the client answer a message."
        )

    def watch_pings(self, hub: _core.Hub, token: int) -> None:
        """As :meth:`watch_end`: there are no pings."""
        self.watch_end(hub, token)

    def unwatch_pings(self, hub: _core.Hub, token: int) -> None:
        """Takes back a :meth:`watch_pings`, or a :meth:`watch_end`."""
        with self._arrived, suppress(ValueError):
            self._end_watches.remove((hub, token))

    def await_end(self, timeout: float | None) -> bool:
        """As :meth:`dwebsocket.api.connection.Connection.await_end`."""
        with self._arrived:
            return self._arrived.wait_for(lambda: self._end is not None, _bounded(timeout))

    async def next_now(self) -> Message | None:
        """
        As :meth:`dwebsocket.api.connection.Connection.next_now`; the message is copied already.
        """
        return self.pop(False)

    def is_slow_to_send(self, message: Message, /) -> bool:
        """Gives False: sending only queues the message, and the server does the rest."""
        return False

    def next(self, find_hub: FindHub, /) -> Awaitable[Message]:
        """As :meth:`dwebsocket.api.connection.Connection.next`, without ``find_hub``."""
        return loop_hub.Again(self._next)

    async def _next(self) -> Message:
        while (message := self.pop(False)) is None:
            if self.waiting() == (0, True):
                raise StopAsyncIteration
            await loop_hub.current().wait(self, self.watch_inbox)
        return message

    def watch_inbox(self, hub: _core.Hub, token: int) -> None:
        """
        As :meth:`dwebsocket.api.connection.Connection.watch_inbox`.

        If ``hub`` is the running loop's it wakes the loop by :meth:`LoopHub.notify
        <dwebsocket.api.waiting.loop_hub.LoopHub.notify>`, without the descriptor.
        """
        with self._arrived:
            _watch(self._inbox_watches, hub, token, ready=self._has_news())

    def listen(self, hub: _core.Hub, token: int, /) -> bool:
        """As :meth:`watch_inbox`, unless there is something to take: then it only gives False."""
        with self._arrived:
            has_news = self._has_news()
            if not has_news:
                _watch(self._inbox_watches, hub, token, ready=False)
        return not has_news

    def watch_outbox(self, hub: _core.Hub, token: int) -> None:
        """As :meth:`watch_inbox`, for room in the outbox, or an outbox that is closed."""
        with self._room:
            _watch(self._outbox_watches, hub, token, ready=self._sealed or not self._outbox)

    def unwatch(self, hub: _core.Hub, token: int) -> None:
        """As :meth:`dwebsocket.api.connection.Connection.unwatch`, for the running loop's hub."""
        # No loop runs when the garbage collector closes a coroutine that was never finished.
        with suppress(RuntimeError), self._room:
            watch = (_target(hub), token)
            for watches in (self._inbox_watches, self._outbox_watches):
                with suppress(ValueError):
                    watches.remove(watch)

    def as_member(self) -> _core.Mailbox:
        """As :meth:`dwebsocket.api.connection.Connection.as_member`."""
        with self._room:
            if self._mailbox is None:
                self._mailbox = GroupMailbox(self._hub, self._capacity, self._on_group_messages)
                if self._end is not None:
                    self._mailbox.end()
            return self._mailbox.member

    # -- under the lock -------------------------------------------------------------------------

    def _has_news(self) -> bool:
        return bool(self._inbox) or self._inbox_ended

    def _is_full(self) -> bool:
        return len(self._inbox) >= _MAX_MESSAGES or self._inbox_bytes >= self._inbox_capacity

    def _has_room(self, size: int) -> bool:
        """Whether a sender need not wait. An empty outbox has room for any message."""
        return self._sealed or not self._outbox or self._outbox_bytes + size <= self._capacity

    def _put(self, event: Event, size: int) -> bool:
        if self._sealed:
            return False
        if self._beat_s is not None:
            self._last_sent_at = clock.now()
            text = event.get("text")
            if text is not None and event is not _BEAT and not text.strip(" "):
                # The page would take it for a beat, or for the text that stands for one.
                event, size = {**event, "text": f"{text} "}, size + 1
        self._outbox.append((event, size))
        self._outbox_bytes += size
        self._sent += event["type"] == "websocket.send" and event is not _BEAT
        self._sent_bytes += size
        self._count()
        if not self._writing:
            self._writing = True
            self._in_loop(self._start_writing)
        return True

    def _resume_reading(self) -> None:
        paused, self._paused = self._paused, None
        if paused is not None:
            self._in_loop(loop_hub.settle, paused)

    def _count(self) -> None:
        """Tells the budget how many bytes are held now."""
        messages = len(self._inbox) + len(self._outbox)
        size = self._inbox_cost + self._outbox_bytes + self._transport_bytes
        if self._share.set(budget.cost(messages, size) + self._taken_cost):
            self._in_loop(budget.process.relieve)
        if self._memory is not None and not self._is_crowded():
            self._memory.set()

    def _is_crowded(self) -> bool:
        """Whether reading pauses: the process is at its limit, and this connection holds much."""
        return budget.process.is_full and self._share.is_large and not self._sealed

    async def _await_memory(self) -> None:
        """Sleeps until this may have changed."""
        self._memory = budget.process.room()
        try:
            if self._is_crowded():
                await self._memory.wait()
        finally:
            self._memory = None

    def _drop_inbox(self) -> None:
        self._inbox.clear()
        self._inbox_bytes = self._inbox_cost = 0
        self._end_inbox()

    def _end_inbox(self) -> None:
        self._inbox_ended = True
        self._update_readiness()
        self._resume_reading()
        self._arrived.notify_all()
        _notify(self._inbox_watches)

    def _announce_room(self) -> None:
        if self._memory is not None:
            self._memory.set()
        self._room.notify_all()
        _notify(self._outbox_watches)

    def _cut(self, code: int, reason: str, by: By) -> None:
        """
        Ends both directions.

        An end that was begun before keeps its code and reason, unless the connection only seemed
        lost and the peer's close frame was found after that.
        """
        if self._end is None:
            self._end, self._ended_at = (code, reason, by), clock.now()
        elif self._end[2] == "lost" and by == "peer":
            self._end = (code, reason, by)
        self._sealed = True
        self._outbox.clear()
        self._outbox_bytes = self._transport_bytes = 0
        self._count()
        self._end_inbox()
        self._announce_room()
        self._announce_end()

    def _announce_end(self) -> None:
        if self._mailbox is not None:
            self._mailbox.end()
        for hub, token in self._end_watches:
            hub.announce(token)
        self._end_watches.clear()

    def _update_readiness(self) -> None:
        if self._readiness is not None:
            has_end = self._inbox_ended and not self._is_end_read
            self._readiness.set(is_ready=has_end or bool(self._inbox))

    def _in_loop(self, callback: Callable[..., None], *args: Any) -> None:
        if running_loop() is self._loop:
            # Do not call it here: a loop may start tasks eagerly, and they take the lock.
            self._loop.call_soon(callback, *args)
            return
        # A closed loop raises RuntimeError. Then `serve` was cancelled, and has done the rest.
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(callback, *args)

    # -- the server's loop ----------------------------------------------------------------------

    async def serve(self) -> None:
        """
        Waits until the connection is over; the ASGI application returns after that.

        Cancelling it closes the connection with 1001.
        """
        try:
            # Do not await the future itself: a cancellation would cancel it.
            await asyncio.wait({self._gone})
        except asyncio.CancelledError:
            self.close(*_GOING_AWAY)
            await asyncio.wait({self._gone}, timeout=_CLOSE_FRAME_S)
            raise
        finally:
            with self._room:
                self._cut(_ABNORMAL, "", "lost")
            self._reader.cancel()
            if self._writer is not None:
                self._writer.cancel()
            if self._beat_timer is not None:
                self._beat_timer.cancel()
            if self._share.is_shed:
                # The bytes in the server's transport are released, too.
                uvicorn.abort(self._send)
            # Django's request is in a reference cycle and refers to this object, so both stay until
            # the garbage collector runs. Drop the server's objects now.
            del self._receive, self._send, self._reader
            OPEN.discard(self)
            self._permit.release()

    @property
    def gone(self) -> asyncio.Future[None]:
        """Done when the connection is over."""
        return self._gone

    async def _read(self) -> None:
        code, reason = _ABNORMAL, ""
        try:
            while (event := await self._receive())["type"] != "websocket.disconnect":
                if event["type"] == "websocket.receive":
                    if paused := self._push(event):
                        await paused
                    if self._meter is not None:
                        await self._slow_down(self._meter, event)
                    # Do not hold the message while waiting for the next one.
                    del event
                    while self._is_crowded():
                        await self._await_memory()
            code = event.get("code") or _NO_STATUS
            reason = event.get("reason") or ""
        except Exception as error:
            _log.debug("The server failed to read from a WebSocket: %r", error)
        # A server that restarts reports to the application the code that it sends to the client.
        by: By = "lost" if code == _ABNORMAL else "local" if code == _RESTART else "peer"
        with self._room:
            self._cut(code, reason, by)
        loop_hub.settle(self._gone)

    async def _slow_down(self, meter: Meter, event: Event) -> None:
        """Pauses reading from a client that sends too fast; closes it if that does not help."""
        text = event.get("text")
        meter.count(size_of(event["bytes"] if text is None else text))
        while self._end is None and (wait := meter.pace(clock.now())):
            if wait == math.inf:
                self.close(_POLICY, "too many messages or bytes a second")
                return
            await pings.await_closed(self, wait)

    def _push(self, event: Event) -> asyncio.Future[None] | None:
        """Queues a message; gives a future to await before the next one is read, if any."""
        text = event.get("text")
        message: Message = event["bytes"] if text is None else text
        size = size_of(message)
        if size > self._max_message_bytes:
            reason = f"message of {size} bytes is over the limit of {self._max_message_bytes}"
            self.close(_TOO_BIG, reason)
            return None
        with self._arrived:
            if self._inbox_ended:
                return None
            # In memory, text takes up to four bytes for each character.
            memory = sys.getsizeof(message)
            self._inbox.append((message, size, memory))
            self._received += 1
            self._received_bytes += size
            self._inbox_bytes += size
            self._inbox_cost += memory
            self._count()
            self._update_readiness()
            self._arrived.notify()
            _notify(self._inbox_watches)
            if self._is_full():
                self._paused = self._loop.create_future()
            return self._paused

    def flush_groups(self) -> None:
        """Puts what has come from groups before what is sent next. Any thread may call it."""
        while not self._sealed and self._move_group_messages():
            pass

    def _on_group_messages(self) -> None:
        """Moves messages of groups into the outbox, unless it still has some."""
        with self._room:
            if self._outbox or self._sealed:
                # The writer calls this again.
                return
        self._move_group_messages()

    def _move_group_messages(self) -> int:
        """Moves some messages of groups; gives how many."""
        mailbox = self._mailbox
        if mailbox is None:
            return 0
        with self._room:
            # Of two threads one goes first, so that messages keep their order.
            messages = mailbox.take()
            for message in messages:
                event, size = to_event(message, binary=None if isinstance(message, str) else True)
                self._put(event, size)
        close = mailbox.member.close_frame()
        if close is not None:
            self.close(*close)
        return len(messages)

    def _look_at_beat(self) -> None:
        """Sends a beat if nothing was sent for so long."""
        with self._room:
            if self._sealed or self._beat_s is None:
                return
            if self._last_sent_at + self._beat_s <= clock.now():
                # The client gets what waits in place of a beat.
                if self._outbox:
                    self._last_sent_at = clock.now()
                else:
                    self._put(_BEAT, 0)
            left = self._last_sent_at + self._beat_s - clock.now()
        self._beat_timer = self._loop.call_later(max(0.0, left), self._look_at_beat)

    def _start_writing(self) -> None:
        self._writer = self._loop.create_task(self._write())

    async def _write(self) -> None:
        while True:
            with self._room:
                if not self._outbox:
                    self._writing = False
                    self._writer = None
                    return
                event, size = self._outbox[0]
            try:
                if event["type"] == "websocket.close":
                    await self._send_close_and_read_on(event)
                else:
                    await self._send(event)
            except Exception as error:
                _log.debug("The server failed to write to a WebSocket: %r", error)
                with self._room:
                    self._cut(_ABNORMAL, "", "lost")
                self._await_the_answer()
            with self._room:
                if self._outbox:
                    self._outbox.popleft()
                    self._outbox_bytes -= size
                # Do not hold the message while waiting for the next one.
                del event
                self._look_at_transport(size)
                self._announce_room()
                is_empty = not self._outbox
            if is_empty and self._mailbox is not None:
                self._move_group_messages()

    def _look_at_transport(self, size: int) -> None:
        """Counts the bytes that the server has yet to send. Under the lock, after each message."""
        if size < budget.STEP_BYTES and not self._transport_bytes:
            return
        before, self._transport_bytes = self._transport_bytes, uvicorn.queued(self._send)
        self._count()
        if self._transport_bytes and not before:
            self._loop.call_later(_LOOK_AT_CLIENT_S, self._look_at_client)

    def _look_at_client(self) -> None:
        with self._room:
            if self._transport_bytes and self in OPEN:
                self._transport_bytes = 0
                self._look_at_transport(budget.STEP_BYTES)

    def _give_up_soon(self) -> None:
        self._loop.call_later(_CLOSE_FRAME_S, self._give_up_if_stuck)

    def _give_up_if_stuck(self) -> None:
        # The close frame is still in the outbox: the server has not taken it.
        if self._outbox:
            self._give_up()

    def _give_up(self) -> None:
        """Ends a connection whose client takes nothing and is in the middle of a message."""
        if self._gone.done() or self not in OPEN:
            return
        if self._writer is not None:
            self._writer.cancel()
        uvicorn.abort(self._send)
        with self._room:
            self._cut(_ABNORMAL, "", "lost")
        loop_hub.settle(self._gone)

    async def _send_close_and_read_on(self, event: Event) -> None:
        # granian sends no close frame while a task waits in `receive`.
        self._reader.cancel()
        await asyncio.wait({self._reader})
        await self._send_close(event)
        if not self._gone.done():
            # Some servers stop reading when no task takes what they have read.
            self._reader = self._loop.create_task(self._read())
        self._await_the_answer()

    def _await_the_answer(self) -> None:
        # Most servers report the client's answer. Some do not, so there is a timeout.
        due = clock.now() + self._close_timeout
        loop_hub.current().call_at(due, functools.partial(loop_hub.settle, self._gone))

    async def _send_close(self, event: Event) -> None:
        code = event["code"]
        try:
            await self._send(event)
        except Exception:
            if code == 1000 or code >= 3000:
                raise
            # daphne takes no other codes from applications: its clients see 4011 for 1011.
            await self._send({**event, "code": code + 3000})


def _bounded(timeout: float | None) -> float | None:
    return None if timeout is None or timeout > _FOREVER_S else timeout


def _target(hub: _core.Hub) -> loop_hub.LoopHub | _core.Hub:
    """Gives the hub of the running loop if ``hub`` is its engine's part, else ``hub``."""
    if running_loop() is not None and (current := loop_hub.current()).core is hub:
        return current
    return hub


def _watch(watches: Watches, hub: _core.Hub, token: int, *, ready: bool) -> None:
    target = _target(hub)
    if ready:
        _announce(target, token)
    else:
        watches.append((target, token))


def _announce(target: loop_hub.LoopHub | _core.Hub, token: int) -> None:
    tell = target.notify if isinstance(target, loop_hub.LoopHub) else target.announce
    tell(token)


def _notify(watches: Watches) -> None:
    for target, token in watches:
        _announce(target, token)
    watches.clear()
