"""
Calls that would block an event loop or a hub for milliseconds, such as compressing large messages.

They run on a few threads of their own, which end as soon as there is nothing to call.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from dwebsocket.api.waiting.loop_hub import settle, wait_until
from dwebsocket.compat import unpatched
from dwebsocket.compat.system import renew_at_fork

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

T = TypeVar("T")

# One thread for each processor: compressing needs nothing else, so more threads are not faster.
_MOST_THREADS = os.cpu_count() or 1
_NAME = "dwebsocket-long-calls"


class Call(Generic[T]):
    """A function that a thread of the system is to call, and the future of its result."""

    __slots__ = ("_function", "future")

    def __init__(self, function: Callable[[], T]) -> None:
        self._function = function
        self.future: Future[T] = unpatched.future()

    def __call__(self) -> None:
        """Calls it, unless the future was cancelled."""
        if self.future.set_running_or_notify_cancel():
            try:
                self.future.set_result(self._function())
            except BaseException as error:
                self.future.set_exception(error)
                # The exception refers to this frame: break the cycle.
                del self

    def fail(self, error: BaseException) -> None:
        """Sets ``error`` as the result: the function cannot be called."""
        if self.future.set_running_or_notify_cancel():
            self.future.set_exception(error)


class LongCalls:
    """Makes calls on up to ``most`` threads, in their order. Any thread may submit one."""

    def __init__(self, most: int) -> None:
        self._lock = unpatched.lock()
        self._left = most
        self._waiting: deque[Call[Any]] = deque()

    def submit(self, function: Callable[[], T]) -> Future[T]:
        """
        Calls ``function`` on one of the threads.

        Never waits, unless the system gives no thread: then ``function`` is called here.
        """
        call = Call(function)
        with self._lock:
            self._waiting.append(call)
            if not self._left:
                return call.future
            self._left -= 1
        try:
            unpatched.start_thread(_NAME, self._work)
        except RuntimeError:
            # The system gives no thread: make the calls on this one.
            self._work()
        return call.future

    def _work(self) -> None:
        while True:
            with self._lock:
                if not self._waiting:
                    self._left += 1
                    return
                call = self._waiting.popleft()
            call()
            # Drop the message and the result now, not only when the next call comes.
            del call


_calls = LongCalls(_MOST_THREADS)


def submit(function: Callable[[], T]) -> Future[T]:
    """Calls ``function`` on one of this process's threads for that: :meth:`LongCalls.submit`."""
    return _calls.submit(function)


async def call_elsewhere(function: Callable[[], T]) -> T:
    """
    Calls ``function`` on another thread, while the running loop goes on.

    When it is cancelled, ``function`` is not called. A call that is under way ends first: what the
    task sends next must not overtake it.
    """
    future = submit(function)
    try:
        return await asyncio.wrap_future(future)
    except asyncio.CancelledError:
        if not future.cancel():
            await wait_until(future, None)
        raise


class FairLock:
    """
    A lock for tasks of several event loops, which get it in the order in which they asked for it.

    An asynchronous context manager, as :class:`asyncio.Lock` is for the tasks of one loop.
    """

    def __init__(self) -> None:
        self._lock = unpatched.lock()
        self._waiting: deque[asyncio.Future[None]] = deque()
        #: Whether a task holds the lock.
        self.is_held = False

    async def __aenter__(self) -> None:
        with self._lock:
            if not self.is_held:
                self.is_held = True
                return
            turn = asyncio.get_running_loop().create_future()
            self._waiting.append(turn)
        try:
            await turn
        except BaseException:
            # The task was cancelled, or its coroutine was closed: it must not keep the lock.
            with self._lock:
                has_come = turn not in self._waiting
                if not has_come:
                    self._waiting.remove(turn)
            if has_come:
                self._pass_on()
            raise

    async def __aexit__(self, *exception: object) -> None:
        self._pass_on()

    def _pass_on(self) -> None:
        while True:
            with self._lock:
                self.is_held = bool(self._waiting)
                if not self.is_held:
                    return
                turn = self._waiting.popleft()
            # A closed loop raises RuntimeError and runs no task any more: go on to the next task.
            with suppress(RuntimeError):
                turn.get_loop().call_soon_threadsafe(settle, turn)
                return


renew_at_fork(globals(), _calls=lambda: LongCalls(_MOST_THREADS))
