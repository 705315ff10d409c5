"""
The threads on which sync code of ASGI applications runs: Channels' sync consumers, and the ORM.

All applications share them. The calls of one are made one at a time, in their order, on whichever
thread is free; a thread with an open database connection stays with its application until that has
called nothing for some seconds. Few threads are awake, as of handlers
(:mod:`~dwebsocket.runners.handler_threads`), but there is no limit to their number: a call may take
as long as a sync view does. There are never more than applications that have called something, and
they end with the last of those.
"""

from __future__ import annotations

import math
from concurrent.futures import Future
from queue import Empty
from typing import TYPE_CHECKING, Any
from weakref import ref

from dwebsocket import database, unpatched
from dwebsocket.api.base import own_websocket
from dwebsocket.compat.system import at_fork
from dwebsocket.compat.threading import SimpleQueue
from dwebsocket.runners.async_view_threads import OwnThread
from dwebsocket.runners.handler_threads import HandlerThreads
from dwebsocket.waiting.long_calls import Call

if TYPE_CHECKING:
    from collections.abc import Callable

    from dwebsocket import _core
    from dwebsocket.connection import Connection, Message


# Threads that start as soon as they are needed. Further ones start one after the other, so that
# thousands of calls that wait for an event loop do not have thousands of threads wait with them.
_AT_ONCE = 32
_PAUSE_S = 0.01


class ApplicationThreads(HandlerThreads):
    """The threads of the process."""

    _name = "dwebsocket-application"

    def _work(self, hubs: list[_core.Hub]) -> None:
        if self._alive > _AT_ONCE:
            unpatched.sleep(_PAUSE_S)
        super()._work(hubs)

    def _most(self) -> float:
        return math.inf


class Line:
    """
    The calls of one application, each of which waits for those before it.

    As a :class:`~dwebsocket.runners.async_view_threads.Worker` for asgiref, as a
    :class:`~dwebsocket.runners.handler_threads.Job` for the threads: it has a turn as long as there
    are calls, or connections of the application on the turn's thread; and one for each message,
    where it reads those.

    Attributes:
        has_turn: Whether it has a turn, or is about to.
    """

    def __init__(self, threads: ApplicationThreads) -> None:
        """Begins without a turn, in the context of its view."""
        self._threads = threads
        self._websocket = None if (own := own_websocket.get()) is None else ref(own)
        # Guards all that follows. Never held while anything else is called.
        self._lock = unpatched.lock()
        self._calls: SimpleQueue[Call[Any]] = SimpleQueue()
        self.has_turn = False
        # Whether a thread has the turn.
        self._is_running = False
        self._is_over = False
        self._reading: _Reading | None = None
        # Its token, from the first turn to the end: the threads end without users.
        self._token: int | None = None

    def submit(self, function: Callable[[], Any]) -> Future[Any]:
        """
        Calls ``function`` behind those that were submitted before. Never waits.

        Raises:
            RuntimeError: The system gives no thread.
        """
        with self._lock:
            call = Call(function)
            self._calls.put(call)
            begins, self.has_turn = not self.has_turn, True
        if begins:
            self._begin_turn()
        return call.future

    def read(self, connection: Connection, handle: Callable[[Message], object]) -> Future[None]:
        """
        Calls ``handle`` with each message of the application's connection, between other calls.

        Returns:
            The future of the end: without a result when no message can come any more, or with the
            exception of ``handle``. Cancelling it ends the reading; a call that is under way goes
            on.

        Raises:
            RuntimeError: The system gives no thread.
        """
        self._reading = reading = _Reading(connection, handle)
        self.submit(_nothing)
        return reading.future

    def end(self) -> Future[Any] | None:
        """
        Closes the database connections of the application, if there are any.

        From then on no thread stays with it.
        """
        with self._lock:
            self._is_over = True
            has_turn, token = self.has_turn, self._token_to_leave()
        if token is not None:
            self._threads.leave(token)
        return self.submit(database.leave) if has_turn else None

    def _token_to_leave(self) -> int | None:
        """Takes the token away when it is not needed any more. Under the lock."""
        if self.has_turn or not self._is_over:
            return None
        token, self._token = self._token, None
        return token

    def _begin_turn(self) -> None:
        try:
            if self._token is None:
                self._token = self._threads.enter(self)
            self._threads.announce(self._token)
        except BaseException as error:
            with self._lock:
                self.has_turn = False
                while not self._calls.empty():
                    self._calls.get().fail(error)
            raise

    def _run_turn(self) -> None:
        with self._lock:
            if self._is_running:
                # The connection has news for the thread that has the turn.
                self._calls.put(Call(_nothing))
                return
            self._is_running = self.has_turn = True
        while self._goes_on():
            pass

    def _goes_on(self) -> bool:
        """Makes the next call, or handles the next message; false when the turn is over."""
        call = self._next_call(0)
        if call is None and self._reads():
            return database.has_own() or self._stays()
        if call is None and not self._is_over and database.has_own():
            self._listen()
            call = self._next_call(database.IDLE_AFTER_S)
        if call is None:
            return self._stays()
        call()
        return True

    def _next_call(self, timeout: float) -> Call[Any] | None:
        try:
            return self._calls.get(timeout=timeout)
        except Empty:
            return None

    def _reads(self) -> bool:
        """Whether there was a message, which has been handled."""
        reading = self._reading
        if reading is None:
            return False
        has_read = reading.handle_next()
        if reading.future.done():
            self._reading = None
        return has_read

    def _listen(self) -> None:
        reading, token = self._reading, self._token
        if reading is not None and token is not None:
            self._threads.listen(reading.connection, token)

    def _stays(self) -> bool:
        """Whether the turn goes on although there was nothing to call."""
        if not self._is_over and database.is_needed():
            return True
        if database.has_own():
            self._give_connections_back()
        with self._lock:
            self.has_turn = self._is_running = goes_on = not self._calls.empty()
            token = self._token_to_leave()
        if token is not None:
            self._threads.leave(token)
        elif not goes_on:
            self._listen()
        return goes_on

    def _give_connections_back(self) -> None:
        database.leave()
        websocket = None if self._websocket is None else self._websocket()
        if websocket is not None and websocket._held is not None:
            websocket._held.end()


class _Reading:
    """The messages of a connection, which the turns of its application handle."""

    def __init__(self, connection: Connection, handle: Callable[[Message], object]) -> None:
        self.connection = connection
        self.future: Future[None] = Future()
        self._handle = handle

    def handle_next(self) -> bool:
        """Handles the next message; false when none is there."""
        if self.future.done():
            return False
        message = self.connection.pop(False)
        try:
            if message is not None:
                self._handle(message)
            elif self.connection.waiting() == (0, True):
                self._finish(None)
        except BaseException as error:
            self._finish(error)
        return message is not None

    def _finish(self, error: BaseException | None) -> None:
        if self.future.set_running_or_notify_cancel():
            if error is None:
                self.future.set_result(None)
            else:
                self.future.set_exception(error)


class ApplicationContext(OwnThread):
    """The thread-sensitive context of one application."""

    @property
    def has_thread(self) -> bool:
        """Whether a thread makes calls of the application, and may have its connections."""
        return self._worker is not None and self.line.has_turn

    @property
    def line(self) -> Line:
        """The calls of the application."""
        line = self.worker()
        assert isinstance(line, Line)
        return line

    def _new_worker(self) -> Line:
        return Line(_threads)


def _nothing() -> None:
    """Does nothing."""


_threads = ApplicationThreads()


def _forget_parents_threads() -> None:
    global _threads
    _threads = ApplicationThreads()


at_fork(_forget_parents_threads)
