"""
The threads on which sync code of ASGI applications runs: Channels' sync consumers, and the ORM.

Authors of such code expect what asgiref promises: all thread-sensitive calls of a process are made
one after the other, on one thread. So there is one, also for what asgiref would call on its own
one: consumers on other connections, background tasks. ``WEBSOCKET_CHANNELS_THREADS`` may be more.
Then the calls of one application are made one at a time, in their order, on whichever thread is
free, and those of different ones at the same time; calls wait when all threads have one.

The threads wait for the engine together, as those of handlers
(:mod:`~dwebsocket.runners.handler_threads`). A single one stays for as long as the process: objects
of its own, such as those of ``sqlite3``, can be used on no other. More than one end with the last
application.
"""

from __future__ import annotations

import functools
from concurrent.futures import Executor, Future
from queue import Empty
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from dwebsocket import conf
from dwebsocket.api.waiting.long_calls import Call
from dwebsocket.compat import asgiref, unpatched
from dwebsocket.compat.system import at_fork, monotonic
from dwebsocket.compat.threading import SimpleQueue, before_pools_end
from dwebsocket.request import database
from dwebsocket.runners.async_view_threads import OwnThread
from dwebsocket.runners.handler_threads import HandlerThreads

if TYPE_CHECKING:
    from collections.abc import Callable

    from dwebsocket._core import Connection
    from dwebsocket.api.arguments import Message

P = ParamSpec("P")
T = TypeVar("T")

# Seconds after which an application goes to the end of the queue: one that is sent many messages
# must not delay the others.
_TURN_S = 0.001


class ApplicationThreads(HandlerThreads):
    """
    Up to ``most`` threads of the process.

    Attributes:
        has_databases: Whether the single thread had database connections after its last turn.
    """

    _name = "dwebsocket-application"

    def __init__(self, most: int) -> None:
        """Begins without threads."""
        super().__init__()
        self._limit = most
        self.has_databases = False

    def enter(self, job: Any, lane: int = 0) -> int:
        """Returns a job's token. Where there is one thread only, it stays for ever."""
        if self._limit == 1 and not self._holders:
            # For ever, so the thread stays.
            self.hold()
        return super().enter(job, lane)

    def end_turn(self) -> None:
        """To be called on a thread, at the end of an application's turn."""
        if self._limit > 1:
            database.close_after_call()
        else:
            self.has_databases = database.has_own()

    def leave_databases(self) -> None:
        """Closes the connections of the single thread, if its last application calls this."""
        if len(self._jobs) <= 1 and not database.is_needed():
            database.leave()

    def _most(self) -> int:
        return self._limit


class CallQueue:
    """
    The calls of one application, each of which waits for those before it.

    As a :class:`~dwebsocket.runners.async_view_threads.Worker` for asgiref, as a
    :class:`~dwebsocket.runners.handler_threads.Job` for the threads: it has turns as long as there
    are calls; and, where it reads the messages of a connection, one for these.

    Attributes:
        has_turn: Whether it has a turn, or is about to.
    """

    def __init__(self, threads: ApplicationThreads) -> None:
        """Begins without a turn."""
        self._threads = threads
        # Guards all that follows. Never held while anything else is called.
        self._lock = unpatched.lock()
        self._calls: SimpleQueue[Call[Any]] = SimpleQueue()
        self.has_turn = False
        # Whether a thread has the turn.
        self._is_running = False
        self._is_over = False
        self._reading: _Reading | None = None
        self._is_listening = False
        # Its token, from the first turn to the end.
        self._token: int | None = None

    def submit(self, function: Callable[[], T]) -> Future[T]:
        """
        Calls ``function`` after those that were submitted before. Never waits.

        Raises:
            RuntimeError: The system gives no thread.
        """
        call = Call(function)
        with self._lock:
            self._calls.put(call)
            begins, self.has_turn = not self.has_turn, True
        if begins:
            self._begin_turn()
        return call.future

    def read(
        self,
        connection: Connection,
        handle: Callable[[Message], object],
        may_read: Callable[[], bool] = lambda: True,
    ) -> Future[None]:
        """
        Calls ``handle`` with each message of the application's connection, between other calls.

        While ``may_read`` returns false, messages wait; a call has to follow when it returns true.

        Returns:
            The future of the end: without a result when no message can come any more, or with the
            exception of ``handle``. Cancelling it ends the reading; a call that is under way goes
            on.

        Raises:
            RuntimeError: The system gives no thread.
        """
        self._reading = reading = _Reading(connection, handle, may_read)
        # A call that does nothing: its turn reads.
        self.submit(bool)
        return reading.future

    def end(self) -> Future[Any] | None:
        """Ends its turns, and closes database connections that no other application may use."""
        with self._lock:
            self._is_over = True
            closes = self.has_turn or (self._token is not None and self._threads.has_databases)
            token = None if closes else self._token_to_leave()
        if token is not None:
            self._threads.leave(token)
        return self.submit(self._threads.leave_databases) if closes else None

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
                # The connection has news, for which the thread that has the turn looks at its end.
                return
            self._is_running = self.has_turn = True
        self._stop_listening()
        end = monotonic() + _TURN_S
        try:
            while self._goes_on() and monotonic() < end:
                pass
            self._threads.end_turn()
        finally:
            self._end_turn()

    def _end_turn(self) -> None:
        with self._lock:
            self._is_running = False
            self.has_turn = goes_on = not self._calls.empty()
            token, left = self._token, self._token_to_leave()
        if left is not None:
            self._threads.leave(left)
        elif goes_on and token is not None:
            self._threads.announce(token)
        else:
            self._listen()

    def _goes_on(self) -> bool:
        """Makes the next call, or handles the next message; false when there is none."""
        try:
            call = self._calls.get(timeout=0)
        except Empty:
            return self._reads()
        call()
        database.give_back_idle()
        return True

    def _reads(self) -> bool:
        """Whether there was a message, which has been handled."""
        reading = self._reading
        if reading is None or not reading.may_read():
            return False
        has_read = reading.handle_next()
        if reading.future.done():
            self._reading = None
        return has_read

    def _listen(self) -> None:
        reading, token = self._reading, self._token
        if reading is not None and token is not None and reading.may_read():
            self._is_listening = True
            self._threads.listen(reading.connection, token)

    def _stop_listening(self) -> None:
        reading, token = self._reading, self._token
        if self._is_listening and reading is not None and token is not None:
            self._is_listening = False
            self._threads.unlisten(reading.connection, token)


class _Reading:
    """The messages of a connection, which the turns of its application handle."""

    def __init__(
        self,
        connection: Connection,
        handle: Callable[[Message], object],
        may_read: Callable[[], bool],
    ) -> None:
        self.connection = connection
        self.may_read = may_read
        self._handle = handle
        # Called at the end.
        self._end: Call[None] = Call(lambda: None)
        self.future = self._end.future

    def handle_next(self) -> bool:
        """Handles the next message; false when none is there."""
        if self.future.done():
            return False
        message = self.connection.pop(False)
        try:
            if message is not None:
                self._handle(message)
            elif self.connection.waiting() == (0, True):
                self._end()
        except BaseException as error:
            self._end.fail(error)
        return message is not None


class ApplicationContext(OwnThread):
    """The thread-sensitive context of one application."""

    @property
    def line(self) -> CallQueue:
        """The calls of the application."""
        line = self.worker()
        assert isinstance(line, CallQueue)
        return line

    def _new_worker(self) -> CallQueue:
        return CallQueue(_threads_of(conf.get("CHANNELS_THREADS")))


class _Rest(Executor):
    """asgiref's context for all calls that no application or request makes: they are one more."""

    def __init__(self, asgirefs: Executor) -> None:
        self._asgirefs = asgirefs

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Calls ``fn`` on the one thread."""
        if unpatched.patched_by() is not None:
            # Green code stays on green threads.
            return self._asgirefs.submit(fn, *args, **kwargs)
        return _rest().submit(functools.partial(fn, *args, **kwargs))


def _threads_of(most: int) -> ApplicationThreads:
    # If two threads race, the first one's object stays.
    return _threads.get(most) or _threads.setdefault(most, ApplicationThreads(most))


@functools.cache
def _rest() -> CallQueue:
    line = CallQueue(_threads_of(1))
    # Between its calls it is none of the applications that may use databases.
    line.end()
    before_pools_end(_await_rest)
    return line


def _await_rest() -> None:
    """Waits at the exit for calls under way, as Python does for those of asgiref's own thread."""
    if _rest.cache_info().currsize and _rest().has_turn:
        _rest().submit(bool).result()


# By their number.
_threads: dict[int, ApplicationThreads] = {}


@functools.cache
def begin() -> None:
    """
    Has asgiref's own calls made on the applications' one thread. To be called before one runs.

    Not in a process without applications: there asgiref's own thread keeps its connections to
    databases.
    """
    asgiref.exchange_one_thread(_Rest)


at_fork(_threads.clear)
at_fork(_rest.cache_clear)
