"""Sending: messages of each kind, and the items of a source."""

from __future__ import annotations

import asyncio
import functools
import math
import threading
from contextlib import contextmanager
from contextvars import ContextVar
from threading import get_ident
from typing import TYPE_CHECKING, Any
from weakref import WeakMethod, ref

from django.core.signals import request_started

from dwebsocket import conf
from dwebsocket.api.arguments import apart, as_binary, as_bytes, as_json, as_text
from dwebsocket.api.base import TRY_AGAIN_LATER, Base, current_websocket, made_once
from dwebsocket.api.source import Source, whole_characters
from dwebsocket.api.waiting import caller as callers
from dwebsocket.api.waiting import loop_hub
from dwebsocket.api.waiting.long_calls import FairLock, call_elsewhere
from dwebsocket.api.waiting.steps import Call, arun, run
from dwebsocket.api.waiting.waiter import THREAD, no_room
from dwebsocket.compat import unpatched
from dwebsocket.compat.asyncio import running_loop
from dwebsocket.compat.system import renew_at_fork
from dwebsocket.compat.threading import does_one_work
from dwebsocket.exceptions import ConnectionClosed, SendTimeout, UsageError
from dwebsocket.telemetry import clock

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dwebsocket._core import Connection
    from dwebsocket.api.arguments import Binary, Frame, Message, Sendable
    from dwebsocket.api.source import Pumped
    from dwebsocket.api.waiting.steps import Steps


class _Many:
    """Stands for more than one connection, and so for one that never ends."""

    def _end(self) -> None:
        return None


_many = _Many()
# The only connection to which a plain thread has sent so far; `_many` when it has sent to several,
# or serves requests, each of which may send to another one. With the thread, as without the GIL
# threads inherit context variables.
_sends_to: ContextVar[tuple[int, ref[Sending] | ref[_Many]] | None] = ContextVar(
    "sends_to", default=None
)


# Whether a thread, or a green one, has turns of many handlers.
_turns = threading.local()
# How many of those wait for clients.
_waiting = 0
_lock = unpatched.lock()


def note_turns() -> None:
    """Notes that this thread has turns of many handlers."""
    _turns.are_had = True


@contextmanager
def _patience(timeout: float | None) -> Iterator[float | None]:
    """
    Gives the seconds for which a send may wait: 0 where half of the handlers' threads do already.

    Else a few clients that take nothing would keep all other handlers from their turns.
    """
    global _waiting
    if not timeout or not getattr(_turns, "are_had", False):
        yield timeout
        return
    most = max(1, conf.get("HANDLER_THREADS") // 2)
    with _lock:
        may_wait = _waiting < most
        _waiting += may_wait
    try:
        yield timeout if may_wait else 0.0
    finally:
        with _lock:
            _waiting -= may_wait


renew_at_fork(globals(), _waiting=int, _lock=unpatched.lock)


def _known_target() -> ref[Sending] | ref[_Many] | None:
    """Returns what is noted of this thread."""
    noted = _sends_to.get()
    return noted[1] if noted is not None and noted[0] == get_ident() else None


def forget_target() -> None:
    """Drops what is noted of a thread from a context that other threads go on with."""
    _sends_to.set(None)


def _on_request(**_: object) -> None:
    _sends_to.set((get_ident(), ref(_many)))


request_started.connect(_on_request, dispatch_uid="dwebsocket.sending")


class Sending(Base):
    """The calls that send messages."""

    # Puts sending tasks in order; set once a task has sent a large message.
    _long_sends: FairLock | None = None

    def send(self, message: Sendable | None, *, strict: bool = False) -> bool:
        """
        Sends a message.

        ``str`` goes out as text. ``bytes`` go out as binary when the connection's text type is
        ``str``; in the compatible mode they are text when they are valid UTF-8, else binary. A text
        that begins with ``{"group":``, as those of dwebsocket itself do, gets a blank before it.

        While the client reads too slowly and ``WEBSOCKET_SEND_BUFFER`` is full, this waits in the
        connection's own view and its helpers, and in a ``threading.Thread`` of your own that has
        sent to this connection before and to no other. Anywhere else it never waits: the client is
        closed with 1013. So a request, a task, an executor and the main thread wait for no client.

        Example::

            for price in prices():
                if not request.websocket.send(f"{price:.2f}"):
                    break  # the client has gone

        Args:
            message: ``str``, ``bytes``, ``bytearray`` or ``memoryview``. On a connection that has
                ended also None, which receiving calls return at the end: an echoing loop passes it.
            strict: Raise when the connection has ended, instead of returning False.

        Returns:
            True when the message was queued or written (not: received), False when the connection
            has ended.

        Raises:
            ConnectionClosed: With ``strict``; or in the connection's own view, when it ended over a
                second ago, an earlier ``send`` of this thread has returned False and this thread
                has not asked for messages since. A view that lets it through ends quietly.
            SendTimeout: In the own view, no room within ``WEBSOCKET_SEND_TIMEOUT``. Such a thread
                gets False then, and the client is closed with 1013.
            TypeError: Any other type of message.
        """
        if self._post(message):
            return True
        if message is None and self._end() is not None:
            return run(self._refuse_to_send(strict))
        return self._send(*self._as_sent(message), strict)

    def send_text(self, message: Sendable, *, strict: bool = False) -> bool:
        """
        Sends a text message: ``str``, or bytes that are valid UTF-8.

        Raises:
            ValueError: Bytes that are not UTF-8.
            TypeError, ConnectionClosed, SendTimeout: As :meth:`send`.
        """
        return self._send(*as_text(message), strict)

    def send_bytes(self, message: Binary, *, strict: bool = False) -> bool:
        """
        Sends a binary message: ``bytes``, ``bytearray`` or ``memoryview``.

        Raises:
            TypeError: Anything else, ``str`` too.
            ConnectionClosed, SendTimeout: As :meth:`send`.
        """
        return self._send(*as_binary(message), strict)

    def send_json(self, data: Any, *, strict: bool = False, **kwargs: Any) -> bool:
        """
        Sends ``data`` as a text message of JSON.

        Dates, decimals and UUIDs are written as Django writes them.

        Example::

            request.websocket.send_json({"name": lot.name, "price": lot.price, "ends": lot.ends})

        Args:
            data: What :func:`json.dumps` takes.
            strict: As for :meth:`send`.
            **kwargs: Passed on to :func:`json.dumps`.

        Raises:
            TypeError: A value that JSON cannot represent.
            ConnectionClosed, SendTimeout: As :meth:`send`.
        """
        return self._send(*as_json(data, kwargs), strict)

    async def asend(self, message: Sendable | None, *, strict: bool = False) -> bool:
        """
        Sends a message, as :meth:`send`, without blocking the event loop.

        It waits for room only in the connection's own view and its tasks; elsewhere, a message
        without room closes the client with 1013. A large message is compressed on another thread,
        and later messages of tasks stay after it.

        Raises:
            ConnectionClosed, SendTimeout, TypeError: As :meth:`send`.
        """
        if not self._is_sending_long() and self._post(message):
            return True
        if message is None and self._end() is not None:
            return await arun(self._refuse_to_send(strict))
        return await self._asend(*self._as_sent(message), strict)

    async def asend_text(self, message: Sendable, *, strict: bool = False) -> bool:
        """
        Sends a text message, as :meth:`send_text`; waits as :meth:`asend` does.

        Raises:
            ValueError, TypeError, ConnectionClosed, SendTimeout: As :meth:`send_text`.
        """
        return await self._asend(*as_text(message), strict)

    async def asend_bytes(self, message: Binary, *, strict: bool = False) -> bool:
        """
        Sends a binary message, as :meth:`send_bytes`; waits as :meth:`asend` does.

        Raises:
            TypeError, ConnectionClosed, SendTimeout: As :meth:`send_bytes`.
        """
        return await self._asend(*as_binary(message), strict)

    async def asend_json(self, data: Any, *, strict: bool = False, **kwargs: Any) -> bool:
        """
        Sends ``data`` as JSON, as :meth:`send_json`; waits as :meth:`asend` does.

        Raises:
            TypeError, ConnectionClosed, SendTimeout: As :meth:`send_json`.
        """
        return await self._asend(*as_json(data, kwargs), strict)

    def pump(self, source: Pumped, *, kill: bool = True) -> bool:
        """
        Sends all that ``source`` gives, as it comes, until it or the connection ends.

        Sends at the client's pace: while the client does not read, the source is not read either.
        Bytes of a stream go out as they come, cut between characters in the compatible mode, so
        that UTF-8 arrives as text. Text streams are sent by lines, iterables by items.

        Args:
            source: A ``subprocess.Popen`` with ``stdout=PIPE``, a file, a socket, a descriptor, or
                an iterable of messages.
            kill: When the client goes, or sending fails: kill the process, or close a source of
                another kind. With False the source stays as it is. A bare descriptor is never
                closed.

        Returns:
            True when the source came to its end, False when the connection did. A client that
            takes nothing within ``WEBSOCKET_SEND_TIMEOUT`` is closed with 1013.

        Raises:
            TypeError, ValueError: No such source, or an item that is no message.
            UsageError: Called in an event loop: use ``await asyncio.to_thread(websocket.pump, …)``.
        """
        if running_loop() is not None:
            raise UsageError(
                "pump() would block the event loop: "
                "use `await asyncio.to_thread(websocket.pump, source)`"
            )
        connection = self._connection or self._engine
        if self._held is not None:
            # The source may give nothing for hours.
            self._held.give_back_idle(0)
        pumped = Source(source)
        is_whole = False
        # The connection keeps the call until its end, long after that of the source.
        interrupt = WeakMethod(pumped.interrupt)
        try:
            self._waiter.at_end(connection, lambda: (call := interrupt()) and call(kill=kill))
            items = pumped.items()
            cut = pumped.is_stream and self._text_as_bytes
            for item in whole_characters(items) if cut else items:
                if not self.send(item):
                    break
            else:
                is_whole = not pumped.is_interrupted
        except SendTimeout:
            connection.close(*TRY_AGAIN_LATER)
        except ConnectionClosed:
            if not self._is_over:
                raise
        finally:
            pumped.finish(kill=kill and not is_whole)
        return is_whole

    # -- what the calls above share -------------------------------------------------------------

    def _as_sent(self, message: Any) -> Frame:
        if isinstance(message, str):
            return apart(message), None
        if not self._text_as_bytes:
            return as_bytes(message), True
        # It may be text.
        return apart(as_bytes(message)), None

    def _post(self, message: Any) -> bool:
        """Sends a message if that needs no waiting and no change, and no further checks."""
        if self._held is not None:
            self._held.give_back_idle()
        sender = current_websocket()
        connection = self._connection or self._engine
        if sender is None:
            posted = connection.post(message, self._text_as_bytes, None)
            if posted:
                self._note_plain_sending()
            return posted
        if not connection.post(message, self._text_as_bytes, sender._connection):
            return False
        if sender is self and self._waiter is not THREAD:
            if self._has_yielded:
                self._has_yielded = False
            else:
                self._waiter.yield_after_sending()
        return True

    def _note_plain_sending(self) -> None:
        """Notes whether this plain thread sends to one connection or to many."""
        known, this = _known_target(), ref(self)
        if known is not this:
            other = None if known is None else known()
            is_sole = other is None or other._end() is not None
            _sends_to.set((get_ident(), this if is_sole else ref(_many)))

    def _is_sole_target(self) -> bool:
        """
        Whether this thread is a helper of this connection.

        Old code starts one for a connection, without telling us: a plain thread that has sent to
        this connection before and to no other. Threads that work for many never wait for one.
        """
        return current_websocket() is None and _known_target() is ref(self) and does_one_work()

    def _send(self, message: Message, binary: bool | None, strict: bool) -> bool:
        if self._held is not None:
            self._held.give_back_idle()
        connection = self._connection or self._engine
        own = current_websocket() is self
        # An event loop must not block here. Nor may a thread that sends to several clients: a slow
        # one would delay the others.
        waits = running_loop() is None and (own or self._is_sole_target())
        timeout = self._send_timeout if waits else None
        try:
            with _patience(timeout) as patience:
                sent = self._waiter.send(connection, message, binary=binary, timeout=patience)
        except SendTimeout:
            if own:
                self._was_too_slow = True
                raise
            connection.close(*TRY_AGAIN_LATER)
            sent = False
        if not sent:
            return run(self._refuse_to_send(strict))
        if current_websocket() is None:
            self._note_plain_sending()
        return True

    async def _asend(self, message: Message, binary: bool | None, strict: bool) -> bool:
        connection = self._connection or self._engine
        is_slow = connection.is_slow_to_send(message)
        if not is_slow and not self._is_sending_long():
            return await self._asend_now(connection, message, binary, strict)
        async with made_once(self, "_long_sends", FairLock):
            return await self._asend_now(connection, message, binary, strict, is_slow=is_slow)

    async def _asend_now(
        self,
        connection: Connection,
        message: Message,
        binary: bool | None,
        strict: bool,
        *,
        is_slow: bool = False,
    ) -> bool:
        if current_websocket() is not self:
            if not is_slow:
                return self._send(message, binary, strict)
            send = functools.partial(connection.send, message, binary=binary)
            return await call_elsewhere(send) or await arun(self._refuse_to_send(strict))
        try_send = functools.partial(connection.try_send, message, binary=binary)
        deadline: float | None = None
        while (sent := await call_elsewhere(try_send) if is_slow else try_send()) is None:
            deadline = await self._await_room(connection, deadline)
        return sent or await arun(self._refuse_to_send(strict))

    async def _await_room(self, connection: Connection, deadline: float | None) -> float:
        """Waits until some room was made, or ``deadline``, and returns that; None is the first."""
        if deadline is None:
            deadline = clock.now() + self._send_timeout
        left = deadline - clock.now()
        if left <= 0:
            self._was_too_slow = True
            raise no_room(self._send_timeout)
        timeout = None if left == math.inf else left
        await loop_hub.current().wait(connection, connection.watch_outbox, timeout)
        return deadline

    def _send_beyond(self, message: Message) -> bool:
        """
        Sends, and never waits: without room the message waits beyond the buffer's size.

        Returns False then: no more is to be sent before :meth:`_await_rest`.
        """
        if self._post(message):
            return True
        message, binary = self._as_sent(message)
        connection = self._connection or self._engine
        return connection.send_beyond(message, binary=binary) is not None

    async def _await_rest(self) -> None:
        """Waits for room after :meth:`_send_beyond`, and closes a client that makes none."""
        connection = self._connection or self._engine
        deadline: float | None = None
        try:
            while not connection.has_room():
                deadline = await self._await_room(connection, deadline)
        except SendTimeout:
            connection.close(*TRY_AGAIN_LATER)

    def _is_sending_long(self) -> bool:
        """Whether a large message of a task is on its way, which later ones must not overtake."""
        return self._long_sends is not None and self._long_sends.is_held

    # -- the end, for sending calls -------------------------------------------------------------

    def _refuse_to_send(self, strict: bool) -> Steps[bool]:
        """Refuses a send because the connection has ended: returns False, or raises."""
        caller = self._caller()
        own = current_websocket() is self
        # A view may send each of its messages in a task of its own, as `asyncio.wait_for` does.
        in_task = own and running_loop() is not None
        refused_before = self._was_refused if in_task else caller.is_refused
        caller.is_refused = self._was_refused = True
        gone_for = self._engine.ended_for() or 0.0
        raises = strict or (own and refused_before and gone_for > callers.GRACE_S)
        raises = raises or self._is_given
        # A thread that sends to other connections, too, is not slowed down.
        if refused_before and (own or self._is_sole_target()):
            yield Call(self._pause, self._apause, caller.pause_of_send(clock.now()))
        if raises:
            self._raise_if_ended()
            if self._is_given:
                # It ends here once the other process has said that it has it.
                raise ConnectionClosed(1012, "handed over", "local")
            # The socket is gone, though the engine has not yet read how.
            raise ConnectionClosed
        return False

    def _pause(self, seconds: float) -> None:
        # In an event loop nothing may sleep.
        if running_loop() is None:
            self._waiter.sleep(seconds)

    async def _apause(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
