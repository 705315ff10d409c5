"""
A connection on an ASGI server where there is no engine: on Windows, for development.

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
import threading
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from dwebsocket import _core
from dwebsocket.api.connection import refused_code
from dwebsocket.api.waiting import loop_hub
from dwebsocket.api.waiting.waiter import no_room
from dwebsocket.compat.asyncio import running_loop
from dwebsocket.compat.system import needs_engine
from dwebsocket.compat.without_engine.process import OPEN
from dwebsocket.exceptions import UnsupportedServer
from dwebsocket.servers.asgi.events import size_of, to_event
from dwebsocket.telemetry import clock

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from dwebsocket.api.connection import By, FindHub, Message
    from dwebsocket.conf import Options
    from dwebsocket.servers.asgi.events import Event, Receive, Send

    Watches = list[tuple[loop_hub.LoopHub | _core.Hub, int]]

_log = logging.getLogger("dwebsocket")

# The same limit as in the engine's inbox.
_MAX_MESSAGES = 1024

_GOING_AWAY, _NO_STATUS, _ABNORMAL, _TOO_BIG, _RESTART, _TRY_AGAIN_LATER = (
    (1001, "going away"), 1005, 1006, 1009, 1012, 1013,
)  # fmt: skip
_MAX_REASON_BYTES = 123
# Longer timeouts count as no timeout: locks have a maximum, which is lower on some systems.
_FOREVER_S = 1e6
# Time for the close frame to a client when the server cancels its connection.
_CLOSE_FRAME_S = 0.5
# An empty text, which shows a page that the connection lives.
_BEAT: Event = {"type": "websocket.send", "text": ""}
# Bytes of groups that are moved to the outbox at a time. What waits in the mailbox is subject to
# the policy for slow members.
_AT_ONCE_BYTES = 64 * 1024

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
    is_kept = is_carried = True

    def __init__(
        self,
        receive: Receive,
        send: Send,
        accept: Event,
        permit: _core.Permit,
        options: Options,
    ) -> None:
        """Sends ``accept`` before anything else. To be called in the server's loop."""
        self.id = next(_ids)
        self._receive = receive
        self._send = send
        self._permit = permit.share()
        self._max_message_bytes = options.max_message_size
        self._inbox_capacity = options.receive_buffer
        self._capacity = options.send_buffer
        self._close_timeout = options.close_timeout
        self._loop = asyncio.get_running_loop()

        lock = threading.Lock()
        # Both conditions use the same lock.
        self._arrived = _Condition(lock)
        self._room = _Condition(lock)

        # Each message with its size on the wire.
        self._inbox: deque[tuple[Message, int]] = deque()
        self._inbox_bytes = 0
        # Messages that have come, and that were taken for the client.
        self._received = 0
        self._sent = 0
        self._received_bytes = 0
        self._sent_bytes = 0
        self._inbox_ended = False
        self._inbox_watches: Watches = []
        # Set while the reader waits for room in the inbox.
        self._paused: asyncio.Future[None] | None = None

        # The first event stays, and its bytes count, until the server's `send` returns.
        self._outbox: deque[tuple[Event, int]] = deque()
        self._outbox_bytes = 0
        self._outbox_watches: Watches = []
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

        self._hub = loop_hub.current()
        # Made when the connection joins its first group.
        self._mailbox: _core.Mailbox | None = None
        self._mailbox_token = 0

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
        """
        Returns False: a task fills the inbox, so a view that never yields soon finds it empty.
        """
        return False

    def take(self, timeout: float | None, text_as_bytes: bool) -> Message | None:
        """As :meth:`dwebsocket.api.connection.Connection.take`."""
        with self._arrived:
            if timeout != 0 and not self._has_news():
                self._arrived.wait_for(self._has_news, _bounded(timeout))
            if not self._inbox:
                return None
            message, size = self._inbox.popleft()
            self._inbox_bytes -= size
            if self._paused is not None and not self._is_full():
                self._resume_reading()
        return message.encode() if text_as_bytes and isinstance(message, str) else message

    def take_coarse(self, time: float, text_as_bytes: bool, /) -> Message | None:
        """As :meth:`take`: ends exactly after ``time``."""
        return self.take(time, text_as_bytes)

    def post(self, message: object, text_as_bytes: bool, sender: object, /) -> bool:
        """Returns False: each message has to go through the queue of :meth:`send`."""
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
            self._inbox.clear()
            self._inbox_bytes = 0
            self._end_inbox()

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
        Fails: only the engine has one.

        Raises:
            UnsupportedServer: Always.
        """
        raise UnsupportedServer(needs_engine("fileno() of a WebSocket"))

    def mark_end_read(self) -> None:
        """Does nothing: there is no descriptor."""

    close_descriptor = mark_end_read

    def ping(self, payload: bytes) -> bool:
        """Returns False, and sends nothing: ASGI has no pings of applications."""
        return False

    def pong(self, payload: bytes) -> bool:
        """Returns False, and sends nothing: ASGI has no pongs of applications."""
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
        """Returns False: sending only queues the message, and the server does the rest."""
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
                self._mailbox_token = self._hub.call_on(self._on_group_messages)
                token = self._mailbox_token
                self._mailbox = _core.Mailbox(self._capacity, self._hub.core, token)
                if self._end is not None:
                    self._mailbox.end()
            return self._mailbox

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
        if not self._writing:
            self._writing = True
            self._in_loop(self._start_writing)
        return True

    def _resume_reading(self) -> None:
        paused, self._paused = self._paused, None
        if paused is not None:
            self._in_loop(loop_hub.settle, paused)

    def _end_inbox(self) -> None:
        self._inbox_ended = True
        self._resume_reading()
        self._arrived.notify_all()
        _notify(self._inbox_watches)

    def _announce_room(self) -> None:
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
        self._outbox_bytes = 0
        self._end_inbox()
        self._announce_room()
        self._announce_end()

    def _announce_end(self) -> None:
        if self._mailbox is not None:
            self._mailbox.end()
            self._hub.forget(self._mailbox_token)
        for hub, token in self._end_watches:
            hub.announce(token)
        self._end_watches.clear()

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
                    # Do not hold the message while waiting for the next one.
                    del event
            code = event.get("code") or _NO_STATUS
            reason = event.get("reason") or ""
        except Exception as error:
            _log.debug("The server failed to read from a WebSocket: %r", error)
        # A server that restarts reports to the application the code that it sends to the client.
        by: By = "lost" if code == _ABNORMAL else "local" if code == _RESTART else "peer"
        with self._room:
            self._cut(code, reason, by)
        loop_hub.settle(self._gone)

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
            self._inbox.append((message, size))
            self._received += 1
            self._received_bytes += size
            self._inbox_bytes += size
            self._arrived.notify()
            _notify(self._inbox_watches)
            if self._is_full():
                self._paused = self._loop.create_future()
            return self._paused

    def _on_group_messages(self) -> None:
        """Moves messages of groups into the outbox, unless it still has some."""
        with self._room:
            if self._outbox or self._sealed:
                # The writer calls this again.
                return
        self._move_group_messages()

    def _move_group_messages(self) -> None:
        """Moves some messages of groups."""
        mailbox, moved = self._mailbox, 0
        if mailbox is None:
            return
        with self._room:
            while moved < _AT_ONCE_BYTES and (message := mailbox.pop()) is not None:
                event, size = to_event(message, binary=None if isinstance(message, str) else True)
                self._put(event, size)
                moved += size
        if (close := mailbox.close_frame()) is not None:
            self.close(*close)

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
                self._announce_room()
                is_empty = not self._outbox
            if is_empty and self._mailbox is not None:
                self._move_group_messages()

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
    """Returns the hub of the running loop if ``hub`` is its engine's part, else ``hub``."""
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
