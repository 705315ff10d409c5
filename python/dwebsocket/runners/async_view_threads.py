"""
The threads of async views, for the ORM and other calls that ``sync_to_async`` keeps on one thread.

An ASGI request has a thread for that from its beginning to its end. A view that lives for hours has
one only while it needs it: from a call on until there was no call for some seconds, no transaction
is open and no cursor is read. Then its database connections are closed and the thread ends. The
number of such threads is limited; further views wait for one, and idle views then give theirs back
earlier.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from concurrent.futures import Executor
from functools import partial
from queue import Empty
from typing import TYPE_CHECKING, Any, ParamSpec, Protocol, TypeVar
from weakref import ref

from asgiref.sync import ThreadSensitiveContext

from dwebsocket.api.base import made_once, own_websocket
from dwebsocket.api.waiting.long_calls import Call
from dwebsocket.compat import unpatched
from dwebsocket.compat.asgiref import current_context, use_context, wrapped_in_context
from dwebsocket.compat.system import renew_at_fork
from dwebsocket.request import database

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from concurrent.futures import Future
    from queue import SimpleQueue

    from dwebsocket.api.base import Base

P = ParamSpec("P")
T = TypeVar("T")

# The same number as in asyncio's own executor.
MOST_THREADS = min(32, (os.cpu_count() or 1) + 4)
_NAME = "dwebsocket-async-view"


class Calls(Protocol):
    """Makes the calls of one view, one after the other."""

    def submit(self, function: Callable[[], Any], /) -> Future[Any]:
        """Calls a function after those before it; returns the future of its result."""

    def end(self) -> Future[Any] | None:
        """Closes the view's database connections and releases the thread; None without one."""


class OwnThread(ThreadSensitiveContext):
    """
    The thread-sensitive context of one async view.

    It has no thread, and takes little memory, until a function is called.

    Attributes:
        has_old_connections: Whether the next call comes after one of
            :func:`django.db.close_old_connections`.
    """

    # asgiref reads this attribute since 3.12.
    _exited = False
    _worker: Calls | None = None
    has_old_connections = False

    def __init__(self) -> None:
        """Begins without a thread. Does not call the base class, which would hold more per view."""

    @classmethod
    def enter(cls) -> OwnThread:
        """Returns the running task a context, for as long as the task lives."""
        own = cls()
        use_context(own, _router)
        return own

    def worker(self) -> Calls:
        """Returns the worker that calls functions on this view's thread."""
        return made_once(self, "_worker", self._new_worker)

    def submit(self, function: Callable[[], T]) -> Future[T]:
        """Calls ``function`` on this view's thread."""
        if self.has_old_connections:
            self.has_old_connections = False
            function = partial(_call_afresh, function)
        return self.worker().submit(function)

    def _new_worker(self) -> Calls:
        return Worker(_threads)

    async def leave(self) -> None:
        """Closes the view's database connections and releases its thread, after its last call."""
        if self._worker is not None and (closed := self._worker.end()) is not None:
            await asyncio.wrap_future(closed)


class SharedContext(OwnThread):
    """
    The thread-sensitive context of all handlers: one object, however many there are.

    Each handler has a thread of its own all the same, as long as it needs one.
    """

    @classmethod
    def enter(cls) -> OwnThread:
        """Makes it the context of the running task, or of the context that runs."""
        use_context(_shared, _router)
        return _shared

    def worker(self) -> Calls:
        """Returns the worker of the handler whose task this is."""
        websocket = own_websocket.get()
        if websocket is None:
            return super().worker()
        return made_once(websocket, "_handler_worker", partial(Worker, _threads))

    @staticmethod
    async def after_turn(websocket: Base) -> None:
        """Does what Django does at a request's end, on the thread of a handler if it has called."""
        worker: Worker | None = websocket._handler_worker
        if worker is not None and (done := worker.after_calls()) is not None:
            await asyncio.wrap_future(done)

    @staticmethod
    def end_worker(websocket: Base) -> Future[Any] | None:
        """Closes the database connections of a handler, and releases its thread. Never waits."""
        if websocket._handler_worker is None:
            return None
        worker: Worker = websocket.__dict__.pop("_handler_worker")
        return worker.end()

    @classmethod
    async def leave_worker(cls, websocket: Base) -> None:
        """Releases the thread of a handler as :meth:`end_worker`, and waits until that is done."""
        if (closed := cls.end_worker(websocket)) is not None:
            await asyncio.wrap_future(closed)


_shared = SharedContext()


async def with_own_thread(make: Callable[[], Coroutine[Any, Any, Any]]) -> None:
    """Awaits a coroutine; calls by ``sync_to_async`` in it run on a thread of its own."""
    own = OwnThread.enter()
    is_thrown_away = False
    try:
        await make()
    except GeneratorExit:
        # The loop was closed: nothing can be awaited any more.
        is_thrown_away = True
        raise
    finally:
        if not is_thrown_away:
            await own.leave()


class _Router(Executor):
    """The executor that asgiref finds for each of these contexts: all of them share it."""

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Calls ``fn`` on the thread of the view in whose context this is called."""
        own = current_context()
        assert isinstance(own, OwnThread)
        # asgiref passes no arguments: what it passes need not be wrapped once more.
        call: Callable[[], T] = partial(fn, *args, **kwargs) if args or kwargs else fn
        websocket = own_websocket.get()
        if websocket is not None and (world := websocket._world) is not None:
            call = wrapped_in_context(call, world.around)
        return own.submit(call)


def _call_afresh(function: Callable[[], T]) -> T:
    database.close_old_connections()
    return function()


_router: Any = _Router()


class Threads:
    """The number of free threads, and the workers that wait for one. Its lock guards them all."""

    def __init__(self, most: int) -> None:
        self.lock = unpatched.lock()
        self.left = most
        self.waiting: deque[Worker] = deque()
        # Workers that have a thread and nothing to call, the one that is idle for longest first.
        self.resting: dict[Worker, None] = {}

    def ask_one(self) -> None:
        """Asks an idle worker for its thread, if another one waits for it. Under the lock."""
        if self.waiting and self.resting:
            resting = next(iter(self.resting))
            del self.resting[resting]
            resting.ask_for_thread()


class Worker:
    """Calls one view's functions, one after the other, on a thread that comes and goes."""

    def __init__(self, threads: Threads) -> None:
        """Begins without a thread, in the context of its view."""
        self._threads = threads
        self._websocket = None if (own := own_websocket.get()) is None else ref(own)
        # A None in the queue asks the worker to give its thread back.
        self._calls: SimpleQueue[Call[Any] | None] = unpatched.calls()
        # Whether it has a thread, or waits for one.
        self._is_at_work = False
        self._is_over = False
        # Whether something was called since :meth:`after_calls`.
        self._has_called = False

    def submit(self, function: Callable[[], Any]) -> Future[Any]:
        """
        Calls ``function`` on the view's thread. Never waits; any thread may call it.

        Raises:
            RuntimeError: The system gives no thread.
        """
        call = Call(function)
        threads = self._threads
        with threads.lock:
            self._has_called = True
            self._calls.put(call)
            threads.resting.pop(self, None)
            if self._is_at_work:
                return call.future
            self._is_at_work = True
            if not threads.left:
                threads.waiting.append(self)
                threads.ask_one()
                return call.future
            threads.left -= 1
        self._start()
        return call.future

    def after_calls(self) -> Future[Any] | None:
        """Does what Django does at a request's end, if a thread has called something since."""
        with self._threads.lock:
            if not (self._has_called and self._is_at_work):
                return None
        done = self.submit(database.close_after_call)
        self._has_called = False
        return done

    def end(self) -> Future[Any] | None:
        """
        Closes the database connections of the thread, if there is one.

        From then on the thread ends as soon as it has nothing to call.
        """
        with self._threads.lock:
            self._is_over = True
            if not self._is_at_work:
                return None
        return self.submit(database.leave)

    def ask_for_thread(self) -> None:
        """Asks this worker to give its thread back, if it is still idle."""
        self._calls.put(None)

    def _start(self) -> None:
        try:
            unpatched.start_code(_NAME, self._work)
        except BaseException as error:
            self._give_thread_back()
            self._fail(error)
            raise

    def _fail(self, error: BaseException) -> None:
        with self._threads.lock:
            calls = []
            while not self._calls.empty():
                calls.append(self._calls.get())
            self._is_at_work = False
        for call in calls:
            if call is not None:
                call.fail(error)

    def _work(self) -> None:
        try:
            database.watch_thread()
            while not self._may_go(self._call_next()):
                pass
        finally:
            # After a failure, too: the calls that wait need a thread.
            try:
                self._leave()
            finally:
                self._give_thread_back()

    def _call_next(self) -> bool:
        """Makes a call. False when none came for long, or another worker needs the thread."""
        try:
            call = self._calls.get(timeout=database.IDLE_AFTER_S)
        except Empty:
            return False
        if call is not None:
            call()
            database.give_back_idle()
        return call is not None

    def _may_go(self, has_called: bool) -> bool:  # noqa: FBT001
        """Whether the thread may end: it was idle for long, or another worker needs it."""
        threads = self._threads
        is_needed = not self._is_over and database.is_needed()
        with threads.lock:
            is_idle = self._calls.empty()
            if is_needed:
                # This worker keeps its thread. If it was asked for it, ask another worker instead.
                threads.ask_one()
                return False
            if has_called and not threads.waiting and not (self._is_over and is_idle):
                if is_idle:
                    threads.resting[self] = None
                return False
            if not is_idle and not threads.waiting:
                # A call has come in between, so the worker is not idle.
                return False
            threads.resting.pop(self, None)
        return True

    def _leave(self) -> None:
        database.leave()
        websocket = None if self._websocket is None else self._websocket()
        if websocket is not None and websocket._held is not None:
            websocket._held.end()

    def _give_thread_back(self) -> None:
        """Passes the thread on to the next worker; this one queues again if a call has come."""
        threads = self._threads
        while True:
            with threads.lock:
                if self._is_at_work:
                    self._is_at_work = not self._calls.empty()
                    if self._is_at_work:
                        threads.waiting.append(self)
                if not threads.waiting:
                    threads.left += 1
                    return
                following = threads.waiting.popleft()
            try:
                unpatched.start_code(_NAME, following._work)
            except BaseException as error:
                following._fail(error)
            else:
                return


_threads = Threads(MOST_THREADS)


renew_at_fork(globals(), _threads=lambda: Threads(MOST_THREADS))
