"""
Light threads for views. The module is a :class:`~dwebsocket.runners.contract.Runner`.

Each view gets a new thread state of Python, which is deleted when the view ends: values that a view
leaves in a ``threading.local`` may belong to its user, and no middleware cleans up after a view as
it does after a request. The threads do not keep the process from ending.
"""

from __future__ import annotations

import functools
import logging
import sys
import threading
from typing import TYPE_CHECKING

from dwebsocket import _core, conf
from dwebsocket.api.waiting.waiter import THREAD
from dwebsocket.compat import unpatched
from dwebsocket.compat.system import at_fork
from dwebsocket.compat.threading import forget_current_thread
from dwebsocket.request import database

if TYPE_CHECKING:
    from dwebsocket.runners.contract import Job

_log = logging.getLogger("dwebsocket")


class ViewThreads:
    """Runs each job on a thread with ``threading.local``s of its own. Any thread may use it."""

    def __init__(self) -> None:
        self.forget_parents()

    def forget_parents(self) -> None:
        """Begins without jobs, also in a forked child."""
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
            # `current_thread()` makes the object for a thread that Python has not started.
            threading.current_thread().name = name
            _trace()
            try:
                # Take the job off the list: no reference to it may remain when `join` returns.
                jobs.pop()()
            finally:
                database.leave()
        except BaseException:
            # Log every error: the count below must go down, or `join` would wait for ever.
            _log.exception("Something failed behind the WebSocket view %s", name)
        finally:
            forget_current_thread()
            self._done()

    def _done(self) -> None:
        # Use the lock itself: it is faster than the condition, whose `__enter__` is Python code.
        with self._lock:
            self._busy -= 1
            if self._busy == 0:
                self._quiet.notify_all()


def _trace() -> None:
    """Sets the tracing of debuggers, profilers and coverage tools, as for any thread of Python."""
    if (trace := threading.gettrace()) is not None:
        sys.settrace(trace)
    if (profile := threading.getprofile()) is not None:
        sys.setprofile(profile)


waiter = THREAD
exits: tuple[type[BaseException], ...] = ()

_threads = ViewThreads()


#: On the view threads of this process.
run, join = _threads.run, _threads.join


def spawn(name: str, job: Job) -> None:
    """Runs ``job`` on a thread beside views: where these are green, as ``unpatched.start_code``."""
    if unpatched.patched_by() is None:
        run(name, job)
    else:
        unpatched.start_code(name, functools.partial(_run_and_leave, job))


def _run_and_leave(job: Job) -> None:
    try:
        job()
    finally:
        database.leave()


at_fork(_threads.forget_parents)
