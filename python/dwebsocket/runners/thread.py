"""
Light threads for views.

Python does not know a thread before its view runs, nor behind it: what a view leaves in
``threading.local`` belongs to its user, and no middleware cleans up behind a view as it does behind
a request. The threads do not hold the process when it ends.
"""

from __future__ import annotations

import functools
import logging
import os
import sys
import threading
from typing import TYPE_CHECKING

from dwebsocket import _core, conf, database, unpatched
from dwebsocket.compat.threading import forget_current_thread
from dwebsocket.waiting.waiter import THREAD

if TYPE_CHECKING:
    from dwebsocket.runners.contract import Job

_log = logging.getLogger("dwebsocket")


class ViewThreads:
    """Runs each job on a thread with ``threading.local``s of its own. Any thread may use it."""

    def __init__(self) -> None:
        self._threads = _core.Threads()
        self._lock = threading.Lock()
        self._busy = 0
        self._quiet = threading.Condition(self._lock)

    def run(self, name: str, job: Job) -> None:
        """
        Runs ``job`` on a thread called ``name``.

        Raises:
            RuntimeError: The system gives no more threads.
        """
        with self._lock:
            self._busy += 1
        try:
            work = functools.partial(self._work, name, [job])
            self._threads.run(work, conf.get("THREAD_STACK_SIZE"))
        except BaseException:
            self._done()
            raise

    def join(self, timeout: float) -> bool:
        """Sleeps until no job runs, ``timeout`` seconds at most. False when the time was up."""
        with self._quiet:
            return self._quiet.wait_for(lambda: self._busy == 0, timeout=max(0.0, timeout))

    def _work(self, name: str, jobs: list[Job]) -> None:
        try:
            # Python makes an object for a thread that it has not started.
            threading.current_thread().name = name
            _trace()
            try:
                # Off the list: nothing may be held of the job when `join` returns.
                jobs.pop()()
            finally:
                database.leave()
        except BaseException:
            # No error may keep `join` waiting for ever.
            _log.exception("Something failed behind the WebSocket view %s", name)
        finally:
            forget_current_thread()
            self._done()

    def _done(self) -> None:
        # The lock itself: the condition's `__enter__` is written in Python.
        with self._lock:
            self._busy -= 1
            if self._busy == 0:
                self._quiet.notify_all()


def _trace() -> None:
    """Has debuggers, profilers and measurers of coverage see this thread, as any of Python's."""
    if (trace := threading.gettrace()) is not None:
        sys.settrace(trace)
    if (profile := threading.getprofile()) is not None:
        sys.setprofile(profile)


_threads = ViewThreads()


def run(name: str, job: Job) -> None:
    """Runs ``job`` on a view thread of this process. As :meth:`ViewThreads.run`."""
    _threads.run(name, job)


def spawn(name: str, job: Job) -> None:
    """Runs ``job`` on a thread of the system, also where new threads are green ones."""
    if unpatched.patched_by() is None:
        run(name, job)
    else:
        unpatched.start_thread(name, job)


def join(timeout: float) -> bool:
    """Sleeps until no view runs. As :meth:`ViewThreads.join`."""
    return _threads.join(timeout)


class _ThreadRunner:
    """See :class:`dwebsocket.runners.contract.Runner`."""

    waiter = THREAD
    exits: tuple[type[BaseException], ...] = ()

    def run(self, name: str, job: Job) -> None:
        run(name, job)

    # Each connection has it: not as another method object.
    spawn = staticmethod(spawn)

    def join(self, timeout: float) -> bool:
        return join(timeout)


RUNNER = _ThreadRunner()


def _forget_parents_threads() -> None:
    global _threads
    _threads = ViewThreads()


os.register_at_fork(after_in_child=_forget_parents_threads)
