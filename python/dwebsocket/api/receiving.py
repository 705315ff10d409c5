"""Receiving: as in the original (``wait``, ``read``), and exactly (``receive``)."""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, Any, TypeVar, overload

from dwebsocket.api.arguments import check_timeout, parsed
from dwebsocket.api.base import IDLE_AFTER_S, Base, current_websocket
from dwebsocket.api.helpers import told_by_exception
from dwebsocket.api.protocol import close_payload
from dwebsocket.api.waiting import caller as callers
from dwebsocket.api.waiting import loop_hub
from dwebsocket.api.waiting.waiter import THREAD
from dwebsocket.compat.asyncio import running_loop
from dwebsocket.compat.system import monotonic
from dwebsocket.exceptions import ConnectionClosed, ReceiveTimeout, UsageError
from dwebsocket.request import database
from dwebsocket.telemetry import clock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

    from dwebsocket.api.arguments import Message
    from dwebsocket.api.waiting.caller import Caller

T = TypeVar("T")

# Calls that find nothing and follow one another within this time are a busy loop: each of them
# sleeps for this long, or until a message comes.
_SPIN_S = 0.001

_TEXT, _BINARY, _CLOSE = 0x1, 0x2, 0x8


class Receiving(Base):
    """The calls that receive messages."""

    _polled_at = 0.0
    _is_close_handled = False

    # -- as ever --------------------------------------------------------------------------------

    def wait(self, timeout: float | None = None) -> Message | None:
        """
        Returns the next message, waiting for it if need be.

        Other threads run meanwhile. Messages that came before the close are given first.

        Example::

            while (message := request.websocket.wait()) is not None:
                request.websocket.send(message)

        Args:
            timeout: Seconds. None or a negative number waits while the connection lives, 0 takes
                what is here.

        Returns:
            The message; None when the time is up or the connection is closed (``is_closed()``
            tells which).

        Raises:
            ConnectionClosed: This thread received the end more than a second ago, from this call
                or from another; or it is one of :meth:`start`. Each thread, green thread and task
                receives the end for itself.
            TypeError, ValueError: ``timeout`` is no number, or NaN.
        """
        if timeout is not None:
            check_timeout(timeout, least=-math.inf)
            if timeout < 0:
                timeout = None
        if self._callers is not None:
            self._receive_again()
        # As `_has_handler`, but each message comes here.
        if getattr(self.handle, "__func__", None) is not _NO_HANDLER:
            message = self._handled(timeout)
        elif timeout is None:
            message = self._take_next()
        else:
            message = self._take(timeout, self._text_as_bytes)
        if message is None:
            self._note_end()
        return message

    @overload
    def read(self) -> Message | None: ...
    @overload
    def read(self, fallback: T) -> Message | T | None: ...
    def read(self, fallback: object = None) -> object:
        """
        Returns one message if there is one, and never waits.

        Other threads get their turn when there is none.

        Returns:
            The message, ``fallback`` when there is none, None at the end of the connection.

        Raises:
            ConnectionClosed: As :meth:`wait`.
        """
        if self._callers is not None:
            self._receive_again()
        message = self._handled(0) if self._has_handler() else self._take(0, self._text_as_bytes)
        if message is None:
            return None if self._note_end() else fallback
        return message

    def has_messages(self) -> bool:
        """
        Whether :meth:`read` has something to give; the end of the connection counts once.

        Raises:
            ConnectionClosed: As :meth:`wait`.
        """
        return self.count_messages() > 0

    def count_messages(self) -> int:
        """
        The number of whole messages that wait, and one more for an end not yet read.

        Raises:
            ConnectionClosed: As :meth:`wait`.
        """
        if self._callers is not None:
            self._receive_again()
        if self._held is not None:
            self._held.give_back_idle()
        messages, ended = self._engine.waiting()
        count = messages + (ended and not self._is_told_here)
        if not count:
            self._let_others_run()
        return count

    def __iter__(self) -> Iterator[Any]:
        """
        Yields each message until the connection has ended.

        In the compatible mode (``WEBSOCKET_TEXT_TYPE = "bytes"``) a final None follows, once. The
        mode is that of the view: no type says which one it is, so type checkers take each message
        for what the view uses it as.

        Example::

            for message in request.websocket:
                request.websocket.send(message)
        """
        while (message := self.wait()) is not None:
            yield message
            # The message may be large, and the next one may come much later.
            del message
        if self._text_as_bytes:
            yield None

    def handle(self, opcode: int, data: Message) -> None:
        """
        Is called for each data message and for the close, from :meth:`wait` and :meth:`read`.

        Does nothing; made to be overridden.

        Args:
            opcode: 1 for text, 2 for binary, 8 for the close (RFC 6455 section 5.2).
            data: The message as it will be returned; for the close its code and reason as they
                stand in the frame.
        """

    # -- exactly --------------------------------------------------------------------------------

    def receive(self, timeout: float | None = None) -> Message:
        """
        Returns the next message, waiting for it if need be.

        Text is ``str``, binary is ``bytes``, whatever ``WEBSOCKET_TEXT_TYPE`` says. Messages that
        came before the close are given first; only then does this raise.

        Example::

            try:
                answer = request.websocket.receive(timeout=30)
            except ReceiveTimeout:
                request.websocket.close(4000, "no answer")

        Args:
            timeout: Seconds. None waits while the connection lives, 0 takes what is here.

        Raises:
            ReceiveTimeout: Nothing came in time. The connection stays usable.
            ConnectionClosed: Nothing is left and nothing more can come.
        """
        check_timeout(timeout)
        if self._callers is not None:
            self._receive_again()
        message: Message | None = self._take(timeout, text_as_bytes=False)
        if message is None:
            self._raise_if_nothing_comes()
            raise ReceiveTimeout(f"no message came within {timeout} s")
        return message

    def receive_json(self, timeout: float | None = None, **kwargs: Any) -> Any:
        """
        Returns the next message, parsed as JSON.

        Example::

            order = request.websocket.receive_json(timeout=30)
            total = sum(order["prices"])

        Args:
            timeout: As for :meth:`receive`.
            **kwargs: Passed on to :func:`json.loads`.

        Raises:
            InvalidMessage: The message is no JSON. It is consumed. A view may let this through: the
                client is closed with 1007.
            ReceiveTimeout, ConnectionClosed: As :meth:`receive`.
        """
        return parsed(self.receive(timeout), kwargs)

    async def areceive(self, timeout: float | None = None) -> Message:
        """
        Returns the next message, as :meth:`receive`, without blocking the event loop.

        Cancelling it loses no message. Several tasks may wait on one connection; each message goes
        to one of them.

        Raises:
            ReceiveTimeout, ConnectionClosed: As :meth:`receive`.
        """
        if self._callers is not None:
            self._note_receiving()
            # Each call of a view may run in a task of its own, as by `asyncio.wait_for`.
            await self._pause_loop()
        else:
            self._begin_receiving()
        connection = self._connection or self._engine
        if timeout is None:
            try:
                return await connection.next(loop_hub.current_core)
            except StopAsyncIteration:
                self._tell_loop()
                self._raise_if_ended()
                raise ConnectionClosed from None
        check_timeout(timeout)
        deadline = clock.now() + timeout
        while (message := await connection.next_now()) is None:
            if connection.waiting() == (0, True):
                self._tell_loop()
                self._raise_if_ended()
            left = deadline - clock.now()
            if left <= 0:
                raise ReceiveTimeout(f"no message came within {timeout} s")
            # Only the wake-up is awaited, so giving up here takes no message away.
            await loop_hub.current().wait(connection, connection.watch_inbox, left)
        return message

    async def areceive_json(self, timeout: float | None = None, **kwargs: Any) -> Any:
        """
        Returns the next message, parsed as JSON. Waits as :meth:`areceive` does.

        Raises:
            InvalidMessage, ReceiveTimeout, ConnectionClosed: As :meth:`receive_json`.
        """
        return parsed(await self.areceive(timeout), kwargs)

    def __aiter__(self) -> AsyncIterator[Message]:
        """Yields each message, text as ``str`` and binary as ``bytes``, until the close."""
        if self._engine.waiting() == (0, True):
            return self._no_messages()
        return _Messages(self)

    def messages(self) -> Messages:
        """
        Returns the messages until the close, for ``for`` and ``async for`` alike.

        Text is ``str``, binary is ``bytes``, whatever ``WEBSOCKET_TEXT_TYPE`` says, and no None
        follows. ``async for message in websocket`` is the same as over this.
        """
        return Messages(self)

    async def _no_messages(self) -> AsyncIterator[Message]:
        # Code that iterates over an ended connection again and again would block the event loop.
        await self._pause_loop()
        self._tell_loop()
        nothing: tuple[Message, ...] = ()
        for message in nothing:
            yield message

    # -- what the calls above share -------------------------------------------------------------

    def _handled(self, timeout: float | None) -> Message | None:
        message = self._take(timeout, text_as_bytes=False)
        if message is None:
            return None
        opcode = _TEXT if isinstance(message, str) else _BINARY
        if self._text_as_bytes and isinstance(message, str):
            message = message.encode()
        if self._has_handler():
            self.handle(opcode, message)
        return message

    def _take(self, timeout: float | None, text_as_bytes: bool) -> Message | None:
        if timeout != 0:
            refuse_in_loop()
        if self._held is not None:
            self._held.give_back_idle()
        connection = self._connection or self._engine
        if self._waiter is not THREAD and connection.owes_a_pause():
            self._waiter.let_others_run(connection, 0)
        if self._callers is None:
            self._begin_receiving()
        message = connection.pop(text_as_bytes)
        if message is not None:
            return message
        own = current_websocket() is self
        if timeout == 0:
            self._let_others_run()
        elif own and (timeout is None or timeout > IDLE_AFTER_S):
            # The own view may wait for long: then without databases.
            deadline = None if timeout is None else clock.now() + timeout
            message = self._waiter.take_coarse(connection, IDLE_AFTER_S, text_as_bytes)
            if message is not None:
                return message
            return self._take_without_databases(deadline, text_as_bytes)
        return self._waiter.take(connection, timeout, text_as_bytes)

    def _take_next(self) -> Message | None:
        """
        Takes the next message without a timeout, in one step for a view's main loop.

        All of its messages come through here.
        """
        if current_websocket() is not self or running_loop() is not None:
            return self._take(None, self._text_as_bytes)
        if not self._view_receives:
            self._begin_receiving()
        if self._held is not None:
            self._held.give_back_idle()
        connection = self._connection or self._engine
        if self._waiter is THREAD:
            message = connection.take_coarse(IDLE_AFTER_S, self._text_as_bytes)
        else:
            if connection.owes_a_pause():
                self._waiter.let_others_run(connection, 0)
            message = connection.pop(self._text_as_bytes)
            if message is None:
                self._has_yielded = True
                message = self._waiter.take_coarse(connection, IDLE_AFTER_S, self._text_as_bytes)
        if message is not None:
            return message
        return self._take_without_databases(None, self._text_as_bytes)

    def _take_without_databases(
        self, deadline: float | None, text_as_bytes: bool
    ) -> Message | None:
        """Waits on, without database connections."""
        connection = self._engine
        # Not `closed`: what came just before the close still has to be taken.
        if connection.waiting() == (0, True):
            return None
        database.release_idle()
        left = None if deadline is None else max(0.0, deadline - clock.now())
        return self._waiter.take(connection, left, text_as_bytes)

    def _let_others_run(self) -> None:
        """To be called when a call that never waits has found nothing."""
        if running_loop() is None:
            is_spinning = monotonic() - self._polled_at < _SPIN_S
            self._waiter.let_others_run(self._engine, _SPIN_S if is_spinning else 0.0)
            self._polled_at = monotonic()

    def _has_handler(self) -> bool:
        # Reading `__dict__` would create the dict: attributes are stored without one until then.
        handle = self.handle
        return handle is not None and getattr(handle, "__func__", None) is not _NO_HANDLER

    # -- the end, for receiving calls -----------------------------------------------------------

    def _begin_receiving(self) -> None:
        """Notes that this caller asks for messages, where no caller needs to note more."""
        if current_websocket() is self and not told_by_exception.get():
            # So a connection on which its view alone receives has no callers.
            self._view_receives = True
        else:
            self._caller().receives = True

    def _note_receiving(self) -> Caller:
        """Notes that this caller asks for messages."""
        caller = self._caller()
        caller.receives = True
        caller.is_refused = False
        caller.asked_at = None
        return caller

    def _receive_again(self) -> None:
        """Prepares a receiving call: sleeps, or raises, when the caller has received the end."""
        caller = self._note_receiving()
        if caller.told_at is None:
            return
        # In an event loop nothing may sleep.
        if running_loop() is None and (pause := caller.pause(clock.now())):
            self._waiter.sleep(pause)
        if clock.now() - caller.told_at > callers.GRACE_S:
            self._raise_if_ended()

    def _tell_loop(self) -> None:
        """Notes that the tasks of the running loop have received the end."""
        self._tell(self._caller(self._waiter.thread()))

    async def _pause_loop(self) -> None:
        """Makes a task that has received the end sleep before its next call."""
        caller = self._caller(self._waiter.thread())
        if caller.told_at is not None and (pause := caller.pause(clock.now())):
            await asyncio.sleep(pause)

    def _raise_if_nothing_comes(self) -> None:
        if self._engine.waiting() == (0, True):
            self._tell(self._caller())
            self._raise_if_ended()

    def _note_end(self) -> bool:
        """Notes that the caller receives the end, if no message is left before it. Whether so."""
        ended = self._engine.waiting() == (0, True)
        if ended:
            self._tell(self._caller())
            if self._has_handler() and not self._is_close_handled:
                self._is_close_handled = True
                code, reason, _ = self._engine.end() or (None, "", None)
                self.handle(_CLOSE, close_payload(code, reason))
            if told_by_exception.get():
                self._raise_if_ended()
        return ended


_NO_HANDLER = Receiving.handle


def refuse_in_loop() -> None:
    """Raises UsageError if an event loop runs in this thread, which a call would block."""
    if running_loop() is not None:
        raise UsageError(
            "this would block the event loop and all its views: "
            "use `await websocket.areceive()` or `async for`"
        )


class _Messages:
    """The iterator of ``async for``."""

    __slots__ = ("_next", "_websocket")

    def __init__(self, websocket: Receiving) -> None:
        self._websocket = websocket
        self._next = websocket._engine.next(loop_hub.current_core)

    def __aiter__(self) -> _Messages:
        return self

    def __anext__(self) -> Awaitable[Message]:
        # Not a coroutine function: the view itself awaits what this returns.
        if self._websocket._callers is not None or self._websocket._view_receives:
            return self._noted()
        return self._next

    async def _noted(self) -> Message:
        """Returns the next message to a caller that is to be told of the end."""
        self._websocket._note_receiving()
        try:
            return await self._next
        except StopAsyncIteration:
            self._websocket._tell_loop()
            raise


def each_message(receive: Callable[[], Message]) -> Iterator[Message]:
    """Yields what ``receive`` returns, until the connection has ended."""
    while True:
        try:
            message = receive()
        except ConnectionClosed:
            return
        yield message
        # The message may be large, and the next one may come much later.
        del message


class Messages:
    """The messages of a connection until its close: see :meth:`WebSocket.messages`."""

    __slots__ = ("_websocket",)

    def __init__(self, websocket: Receiving) -> None:
        self._websocket = websocket

    def __iter__(self) -> Iterator[Message]:
        """Yields each message; waits without the GIL. Not in an event loop."""
        return each_message(self._websocket.receive)

    def __aiter__(self) -> AsyncIterator[Message]:
        """Yields each message, as ``async for message in websocket``."""
        return self._websocket.__aiter__()
