"""An executor on the system's own threads, for processes where new threads are green ones."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from dwebsocket.compat import unpatched
from dwebsocket.compat.threading import SimpleQueue

P = ParamSpec("P")
T = TypeVar("T")
Call = Callable[[], None]


class SystemExecutor(ThreadPoolExecutor):
    """
    Runs calls on up to ``threads`` threads of the system, which it keeps.

    :meth:`asyncio.loop.set_default_executor` demands this base class. Nothing else of it is used:
    its threads and queues would be green, and their hub would never run.
    """

    def __init__(self, threads: int) -> None:
        super().__init__(threads)
        self._calls: SimpleQueue[Call] = SimpleQueue()
        self._most = self._to_start = threads
        self._lock = unpatched.lock()

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """
        Submits a call. Nothing may block on its future.

        Raises:
            RuntimeError: The system gives no thread.
        """
        future: Future[T] = unpatched.future()

        def call() -> None:
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(fn(*args, **kwargs))
                except BaseException as error:
                    future.set_exception(error)

        with self._lock:
            if self._to_start:
                try:
                    unpatched.start_thread("dwebsocket-executor", self._work)
                except RuntimeError:
                    if self._to_start == self._most:
                        raise
                    # The threads that there are make the call. The next one tries again.
                else:
                    self._to_start -= 1
        self._calls.put(call)
        return future

    def _work(self) -> None:
        while True:
            self._calls.get()()

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: FBT001, FBT002
        """Does nothing: its threads end with the process."""
