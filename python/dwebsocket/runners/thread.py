"""
Light threads for views.

A thread that has ended one view waits a moment for the next before it goes away, so a busy site
starts few threads. They are daemons: what they still do when the process ends does not hold it.
"""

from __future__ import annotations

import logging
import os
import threading
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

from django.db import connections

from dwebsocket import conf, native
from dwebsocket.compat.threading import start_without_waiting
from dwebsocket.waiting import THREAD

if TYPE_CHECKING:
    from dwebsocket.runners.contract import Job

_log = logging.getLogger("dwebsocket")

# How long a thread without work stays: long enough for clients that all come back after a reload or
# a lost network, for whom new threads would cost a fifth of their handshakes.
_LINGER_S = 2.0
_IDLE_NAME = "dwebsocket-idle"


class ThreadPool:
    """Runs each job on a thread of its own. Any thread may use it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # The last to come is the first to go on: what it touches is still at hand.
        self._idle: dict[_Worker, None] = {}
        self._busy = 0
        self._quiet = threading.Condition(self._lock)

    def run(self, name: str, job: Job) -> None:
        """
        Runs ``job`` on a thread called ``name``.

        Raises:
            RuntimeError: The system gives no more threads.
        """
        with self._lock:
            worker = self._idle.popitem()[0] if self._idle else None
            self._busy += 1
        if worker is not None:
            worker.jobs.put((name, job))
            return
        worker = _Worker(self)
        try:
            worker.start(name, job)
        except BaseException:
            with self._quiet:
                self._busy -= 1
            raise

    def join(self, timeout: float) -> bool:
        """Sleeps until no job runs, ``timeout`` seconds at most. False when the time was up."""
        with self._quiet:
            return self._quiet.wait_for(lambda: self._busy == 0, timeout=max(0.0, timeout))

    def dismiss(self, timeout: float) -> bool:
        """Lets all idle threads go at once. As :meth:`join`."""
        quiet = self.join(timeout)
        with self._lock:
            idle, self._idle = self._idle, {}
        for worker in idle:
            worker.jobs.put(None)
        for worker in idle:
            worker.thread.join(timeout)
        return quiet

    def retire(self, worker: _Worker) -> bool:
        """Lets an idle worker go, unless a job is on its way to it."""
        with self._lock:
            if worker not in self._idle:
                return False
            del self._idle[worker]
            return True

    def done(self, worker: _Worker) -> None:
        """Notes that a worker waits for its next job."""
        # The lock itself: the condition's way to it is written in Python.
        with self._lock:
            self._idle[worker] = None
            self._busy -= 1
            if self._busy == 0:
                self._quiet.notify_all()


class _Worker:
    """One thread and the way to give it work."""

    # `threading.stack_size` is one setting for the process.
    starting = threading.Lock()

    def __init__(self, pool: ThreadPool) -> None:
        self._pool = pool
        self.jobs: SimpleQueue[tuple[str, Job] | None] = SimpleQueue()
        self.thread: threading.Thread

    def start(self, name: str, job: Job) -> None:
        # Not as an argument: a thread keeps those until it ends.
        self.jobs.put((name, job))
        thread = self.thread = threading.Thread(target=self._work, name=name, daemon=True)
        # `Thread.start` would sleep until the thread runs: that takes two turns of the GIL, and
        # the handshake has something to do meanwhile.
        start_without_waiting(thread)
        stack_size = conf.get("THREAD_STACK_SIZE")
        with self.starting:
            previous = threading.stack_size(stack_size)
            try:
                thread.start()
            finally:
                threading.stack_size(previous)

    def _work(self) -> None:
        thread = threading.current_thread()
        try:
            while True:
                try:
                    found = self.jobs.get(timeout=_LINGER_S)
                except Empty:
                    if self._pool.retire(self):
                        return
                    found = self.jobs.get()
                if found is None:
                    return
                thread.name, job = found
                del found
                try:
                    job()
                except BaseException:
                    # Whoever waits for the job to end must not wait for ever.
                    _log.exception("Something failed behind the WebSocket view %s", thread.name)
                # A thread in wait must not keep its last view alive.
                del job
                thread.name = _IDLE_NAME
                self._pool.done(self)
        finally:
            connections.close_all()


_pool = ThreadPool()


def run(name: str, job: Job) -> None:
    """Runs ``job`` on a view thread of this process. As :meth:`ThreadPool.run`."""
    _pool.run(name, job)


def spawn(name: str, job: Job) -> None:
    """Runs ``job`` on a thread of the system, also where new threads are green ones."""
    if native.patched_by() is None:
        run(name, job)
    else:
        native.start_thread(name, job)


def join(timeout: float) -> bool:
    """Sleeps until no view runs. As :meth:`ThreadPool.join`."""
    return _pool.join(timeout)


def dismiss(timeout: float) -> bool:
    """Lets all view threads of this process go. As :meth:`ThreadPool.dismiss`."""
    return _pool.dismiss(timeout)


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
    global _pool
    _pool = ThreadPool()
    _Worker.starting = threading.Lock()


os.register_at_fork(after_in_child=_forget_parents_threads)
