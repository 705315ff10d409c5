"""
Light threads for views.

Each view has a new one: what it leaves in ``threading.local`` belongs to its user, and no
middleware cleans up behind a view as it does behind a request. They are daemons: what they still do
when the process ends does not hold it.
"""

from __future__ import annotations

import functools
import logging
import os
import threading
from typing import TYPE_CHECKING

from dwebsocket import conf, database, native
from dwebsocket.compat.threading import start_without_waiting
from dwebsocket.waiting import THREAD

if TYPE_CHECKING:
    from dwebsocket.runners.contract import Job

_log = logging.getLogger("dwebsocket")


class ViewThreads:
    """Runs each job on a new thread. Any thread may use it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._busy = 0
        self._quiet = threading.Condition(self._lock)
        # `threading.stack_size` is one setting for the process.
        self._starting = threading.Lock()

    def run(self, name: str, job: Job) -> None:
        """
        Runs ``job`` on a thread called ``name``.

        Raises:
            RuntimeError: The system gives no more threads.
        """
        with self._lock:
            self._busy += 1
        try:
            self._start(name, job)
        except BaseException:
            self._done()
            raise

    def join(self, timeout: float) -> bool:
        """Sleeps until no job runs, ``timeout`` seconds at most. False when the time was up."""
        with self._quiet:
            return self._quiet.wait_for(lambda: self._busy == 0, timeout=max(0.0, timeout))

    def _start(self, name: str, job: Job) -> None:
        # Not the job itself: a thread keeps its arguments until it ends.
        work = functools.partial(self._work, [job])
        thread = threading.Thread(target=work, name=name, daemon=True)
        # `Thread.start` would sleep until the thread runs: that takes two turns of the GIL, and
        # the handshake has something to do meanwhile.
        start_without_waiting(thread)
        stack_size = conf.get("THREAD_STACK_SIZE")
        with self._starting:
            previous = threading.stack_size(stack_size)
            try:
                thread.start()
            finally:
                threading.stack_size(previous)

    def _work(self, jobs: list[Job]) -> None:
        try:
            try:
                jobs.pop()()
            finally:
                database.leave()
        except BaseException:
            # No error may keep `join` waiting for ever.
            name = threading.current_thread().name
            _log.exception("Something failed behind the WebSocket view %s", name)
        finally:
            self._done()

    def _done(self) -> None:
        # The lock itself: the condition's `__enter__` is written in Python.
        with self._lock:
            self._busy -= 1
            if self._busy == 0:
                self._quiet.notify_all()


_threads = ViewThreads()


def run(name: str, job: Job) -> None:
    """Runs ``job`` on a view thread of this process. As :meth:`ViewThreads.run`."""
    _threads.run(name, job)


def spawn(name: str, job: Job) -> None:
    """Runs ``job`` on a thread of the system, also where new threads are green ones."""
    if native.patched_by() is None:
        run(name, job)
    else:
        native.start_thread(name, job)


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
