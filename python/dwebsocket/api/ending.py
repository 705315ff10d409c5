"""The end of a connection: closing it, asking for it, waiting for it, and what comes after."""

from __future__ import annotations

import time
from operator import add
from typing import TYPE_CHECKING, TypeVar

from dwebsocket import signals
from dwebsocket.api.arguments import as_close, check_callable, check_close, check_timeout
from dwebsocket.api.base import IDLE_AFTER_S, Base, current_websocket
from dwebsocket.api.close_callbacks import CloseCallbacks
from dwebsocket.api.helpers import told_by_exception
from dwebsocket.api.waiting import caller as callers
from dwebsocket.api.waiting import pings
from dwebsocket.compat.asyncio import running_loop
from dwebsocket.exceptions import UsageError
from dwebsocket.request import database
from dwebsocket.telemetry import clock

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.http import HttpRequest
    from typing_extensions import TypeVarTuple, Unpack

    Ts = TypeVarTuple("Ts")

T = TypeVar("T")


class Ending(Base):
    """The calls about the end of a connection."""

    def close(self, code: int | None = None, reason: str | bytes | None = None) -> None:
        """
        Closes the connection. Earlier messages still go out; ``wait`` returns everywhere.

        Never waits. Closing a closed connection does nothing, nor does closing one that was never
        opened.

        Example::

            request.websocket.send("You have won")
            request.websocket.close(4001, "game over")

        Args:
            code: The close code; 1000 by default.
            reason: Up to 123 bytes of UTF-8.

        Raises:
            TypeError: A code that is no ``int``.
            ValueError: A code that RFC 6455 forbids to send, or a reason that does not fit.
        """
        is_to_open = self._connection is None and not self._is_undecided
        if is_to_open and current_websocket() is not self:
            # A project's own middleware closes each WebSocket, also one that is not open yet.
            return
        code, reason = as_close(code, reason)
        if is_to_open:
            # Its view has accepted, and does not wait until it is open.
            check_close(code, reason)
            self._is_deliberate = True
            self._close_soon(code, reason)
            return
        engine, was_deliberate = self._engine, self._is_deliberate
        if engine.end() is None:
            # First: the view may see the end, and be over, before this thread goes on.
            self._is_deliberate = True
        try:
            engine.close(code, reason)
        except ValueError:
            self._is_deliberate = was_deliberate
            raise
        self._caller().has_closed = True

    async def aclose(self, code: int | None = None, reason: str | bytes | None = None) -> None:
        """
        Closes the connection. The same as :meth:`close`, for code that awaits everything.

        Raises:
            TypeError, ValueError: As :meth:`close`.
        """
        self.close(code, reason)

    @property
    def closed(self) -> bool:
        """
        Whether the connection has ended: either side began to close, or the client vanished.

        Before it is open it has not, unless it was closed already.
        """
        return self._end() is not None

    def is_closed(self) -> bool:
        """
        Whether a loop around this call is over.

        For a thread that receives on this connection that is so when the client has ended it and
        a receiving call has told of that, by its None or its exception; when the server has ended
        it and no message waits; when this thread has closed it; or when a ``send`` of it was
        refused and no message waits. So ``while not websocket.is_closed(): message =
        websocket.wait()`` misses no message. A view that looks between :meth:`wait` and its
        work misses none, either. For any other caller it is the end of the connection, and so it is
        for ``async for``. :attr:`closed` is exact.

        Example::

            while not request.websocket.is_closed():
                request.websocket.send(next_quote())
                time.sleep(1)
        """
        connection = self._engine
        caller = self._caller()
        if caller.has_closed or self._is_end_told:
            return True
        is_view = current_websocket() is self
        receives = caller.receives or (
            self._view_receives and is_view and not told_by_exception.get()
        )
        # Read the end first: once it is there, so are all messages before it.
        end = connection.end()
        ended_for = connection.ended_for()
        has_messages = connection.waiting()[0] > 0
        if caller.is_refused and not (receives and has_messages):
            return True
        if end is None or ended_for is None:
            return False
        if not has_messages:
            # The last message may be in this caller's hands.
            has_taken = receives and connection.messages()[0] > 0
            if not has_taken or end[2] == "local":
                return True
        elif not receives and ended_for > callers.GRACE_S and not is_view:
            # This caller may be about to begin receiving. Some time after the end, messages that
            # are left are for other callers, unless this is the view.
            return True
        if caller.asked_at is None:
            caller.asked_at = clock.now()
        # A caller that calls this again and again takes no messages: give it the end after a while.
        return clock.now() - caller.asked_at > callers.GRACE_S

    is_close = is_closed

    @property
    def close_code(self) -> int | None:
        """
        The close code, None while the connection is open and before.

        1005 stands for a close frame without a code, 1006 for a client that vanished.
        """
        end = self._end()
        return None if end is None else end[0]

    @property
    def close_reason(self) -> str:
        """The reason beside the close code; empty while the connection is open and before."""
        end = self._end()
        return "" if end is None else end[1]

    def wait_closed(self, timeout: float | None = None) -> bool:
        """
        Waits until the connection has ended, and takes no message meanwhile.

        When messages that are not taken fill ``WEBSOCKET_RECEIVE_BUFFER``, the engine stops
        reading, and the client waits. A close after them is seen when they are taken.

        Args:
            timeout: Seconds. None waits while the connection lives, 0 only looks.

        Returns:
            Whether it has ended.

        Raises:
            UsageError: The connection is not open yet; or called in an event loop (use
                ``await websocket.await_closed()``).
        """
        check_timeout(timeout)
        connection = self._connection or self._engine
        if timeout == 0:
            return self.closed
        if running_loop() is not None:
            raise UsageError(
                "this would block the event loop and all its views: "
                "use `await websocket.await_closed()`"
            )
        if current_websocket() is self and (timeout is None or timeout > IDLE_AFTER_S):
            if pings.wait_closed(connection, self._waiter, IDLE_AFTER_S):
                return True
            database.release_idle()
            timeout = None if timeout is None else timeout - IDLE_AFTER_S
        return pings.wait_closed(connection, self._waiter, timeout)

    async def await_closed(self, timeout: float | None = None) -> bool:
        """
        Waits until the connection has ended, as :meth:`wait_closed`, without blocking the event
        loop.

        Raises:
            UsageError: The connection is not open yet.
        """
        check_timeout(timeout)
        return await pings.await_closed(self._connection or self._engine, timeout)

    def _announce_end_later(self, request: HttpRequest) -> None:
        if (announce := self._announce_groups) is not None:
            self._announce_groups = None
            announce()
        if signals.websocket_closed.receivers:
            self.on_close(self._announce_end, request)

    def _announce_end(self, request: HttpRequest) -> None:
        connection = self._engine
        code, reason, by = connection.end() or (1006, "", "lost")
        since = time.time() if self._opened_at is None else self._opened_at
        received, sent = map(add, connection.messages(), self._messages_before)
        signals.send_of_end(
            signals.websocket_closed,
            self,
            request,
            code=code,
            reason=reason,
            by=by,
            seconds=max(0.0, time.time() - since - (connection.ended_for() or 0.0)),
            messages_in=received,
            messages_out=sent,
        )

    def on_close(
        self, callback: Callable[[Unpack[Ts]], T], *args: Unpack[Ts]
    ) -> Callable[[Unpack[Ts]], T]:
        """
        Has ``callback(*args)`` called once when this connection ends, whichever way it does.

        That is: the client closes or vanishes, a limit or :meth:`close` ends it, the view returns
        or fails, or the process ends. Callbacks run in the order of their registration, one after
        the other, on a thread (green thread) of their own, beside the view if it is still at work.
        The ORM, the language and the time zone work there as in the view. An exception is logged,
        and the next callback runs. One that is registered after the end runs at once.

        Args:
            callback: A function; or a coroutine function, which runs in the event loop in which it
                was registered, else in one of the process.
            *args: Its arguments.

        Returns:
            ``callback``, so that this may be used as a decorator.

        Raises:
            TypeError: ``callback`` cannot be called.
            RuntimeError: The system gives no thread.
        """
        check_callable("on_close()", callback)
        callbacks = self._close_callbacks
        if callbacks is None:
            # If two threads race, the first one's object stays.
            made = CloseCallbacks(str(self))
            callbacks = self.__dict__.setdefault("_close_callbacks", made)
        if self._connection is not None and not callbacks.is_attached:
            callbacks.attach(self._connection, self._waiter, self._spawn, self._world)
        callbacks.add(callback, args, self._world)
        return callback
