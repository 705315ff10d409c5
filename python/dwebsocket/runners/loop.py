"""
The event loops of async views.

Under ASGI they are tasks of the server's loop; under WSGI there is one loop a process, on a thread
of its own.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import Context
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from dwebsocket.api.close_callbacks import CloseCallbacks
from dwebsocket.compat import unpatched
from dwebsocket.compat.asgiref import use_executor
from dwebsocket.compat.asyncio import hide_task
from dwebsocket.compat.system import at_fork, renew_at_fork
from dwebsocket.runners import green_loops
from dwebsocket.runners.application_threads import ApplicationThreads
from dwebsocket.runners.async_view_threads import with_own_thread

if TYPE_CHECKING:
    import threading

P = ParamSpec("P")
T = TypeVar("T")

_log = logging.getLogger("dwebsocket")

# The largest number of threads in asyncio's own default executor.
_EXECUTOR_THREADS = 32

Start = Callable[[], Coroutine[Any, Any, None]]


class BackgroundLoop:
    """
    Runs coroutines as tasks. Any thread may use it.

    Under gevent that thread is a green one: see :func:`dwebsocket.compat.unpatched.start_code`, and
    :mod:`~dwebsocket.runners.green_loops` for how the green threads beside it are no async code.
    """

    def __init__(self) -> None:
        self._lock = unpatched.lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        # Tasks that run or are about to.
        self._busy = 0
        # Both belong to the loop. It keeps only weak references to tasks.
        self._tasks: set[asyncio.Task[None]] = set()
        self._when_quiet: list[Callable[[], object]] = []
        # The context of the done callbacks. Without it each task would hold a context of its own,
        # with all values that the handshake has left there.
        self._outside = Context()
        self._on_done = self._done
        # Held until the present loop has ended.
        self._gone = unpatched.lock()

    def run(self, name: str, start: Start, context: Context) -> None:
        """
        Runs the coroutine from ``start`` as a task called ``name`` in ``context``.

        Raises:
            RuntimeError: The system gives no thread for the loop.
        """
        with self._lock:
            running = self._running()
            self._busy += 1
        running.call_soon_threadsafe(self._begin, name, start, context=context)

    def start(self) -> None:
        """Starts the loop before its first task. Raises as :meth:`run`."""
        with self._lock:
            self._running()

    def _running(self) -> asyncio.AbstractEventLoop:
        """Returns the loop, which is started first. Under the lock."""
        if self._loop is None:
            # In an empty context: the loop keeps its context, and that of the first handshake must
            # not stay.
            self._loop = Context().run(self._launch)
        return self._loop

    def hold(self) -> None:
        """Keeps the loop for something that has tasks in it now and then."""
        with self._lock:
            self._busy += 1

    def release(self) -> None:
        """Takes :meth:`hold` back. To be called in the loop."""
        with self._lock:
            self._busy -= 1
        self._tell_if_quiet()

    def _launch(self) -> asyncio.AbstractEventLoop:
        if unpatched.patched_by() is None:
            loop = asyncio.new_event_loop()
        else:
            loop = _green_loop() if unpatched.is_code_green() else _unpatched_loop()
        # Of its own: the one before may end later.
        gone = unpatched.lock()
        gone.acquire()
        try:
            unpatched.start_code("dwebsocket-loop", functools.partial(self._run, loop, gone))
        except BaseException:
            loop.close()
            raise
        self._gone = gone
        return loop

    def _run(self, loop: asyncio.AbstractEventLoop, gone: threading.Lock) -> None:
        # Only `dismiss` stops it.
        while not self._runs_until_stopped(loop):
            pass
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()
        gone.release()

    def _runs_until_stopped(self, loop: asyncio.AbstractEventLoop) -> bool:
        try:
            loop.run_forever()
        except (SystemExit, KeyboardInterrupt):
            if unpatched.is_code_green():
                # On the main thread it ends the process.
                raise
            # asyncio lets those of a task end the loop. It has the tasks of all other views.
            _log.exception("A task has asked for the end of the process; others go on")
            return False
        return True

    def _begin(self, name: str, start: Start) -> None:
        # The task copies the context that this call runs in.
        task = asyncio.get_running_loop().create_task(start(), name=name)
        self._tasks.add(task)
        # Each request to an async view on a WSGI server searches all tasks of all loops for its
        # own: with ten thousand tasks a handshake would take ten times as long. So asyncio must not
        # list these; `_tasks` keeps them. (Docs of asyncio, "Extending".)
        hide_task(task)
        task.add_done_callback(self._on_done, context=self._outside)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        with self._lock:
            self._busy -= 1
        self._tell_if_quiet()

    def _tell_if_quiet(self) -> None:
        if self._busy == 0:
            for tell in self._when_quiet:
                tell()
            self._when_quiet.clear()

    def _ask(self, tell: Callable[[], object]) -> None:
        self._when_quiet.append(tell)
        self._tell_if_quiet()

    def join(self, timeout: float) -> bool:
        """Sleeps until no task runs, ``timeout`` seconds at most. False when the time was up."""
        if self._loop is None or self._busy == 0:
            return True
        if timeout <= 0:
            return False
        # Wait on a lock of the system: all other primitives may be green.
        quiet = unpatched.lock()
        quiet.acquire()
        self._loop.call_soon_threadsafe(self._ask, quiet.release)
        return unpatched.acquire(quiet, timeout)

    def dismiss(self, timeout: float) -> bool:
        """
        Ends the loop and its thread, as soon as no task runs; the next task starts others.

        Returns:
            Whether they have ended. False when tasks still run, or the time was up.
        """
        if not self.join(timeout):
            return False
        with self._lock:
            if self._busy:
                return False
            loop, self._loop, gone = self._loop, None, self._gone
        if loop is None:
            return True
        loop.call_soon_threadsafe(loop.stop)
        return unpatched.acquire(gone, max(0.0, timeout))


class SystemExecutor(ThreadPoolExecutor):
    """
    Runs calls on up to ``threads`` threads of the system, which it keeps.

    For processes where new threads are green ones. :meth:`asyncio.loop.set_default_executor`
    demands this base class. Nothing else of it is used: its threads and queues would be green, and
    their hub would never run.
    """

    def __init__(self, threads: int) -> None:
        super().__init__(threads)
        self._threads_of_system = ApplicationThreads(threads)
        self._threads_of_system.hold()

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """
        As :meth:`concurrent.futures.Executor.submit`, but nothing may block on the future.

        Raises:
            RuntimeError: The system gives no thread.
        """
        return self._threads_of_system.call(functools.partial(fn, *args, **kwargs))

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: FBT001, FBT002
        """Does nothing: its threads end with the process."""


def _green_loop() -> asyncio.AbstractEventLoop:
    """Returns a loop for a green thread, which uses green threads itself."""
    loop = asyncio.SelectorEventLoop(green_loops.watched_selector())
    use_executor(loop, ThreadPoolExecutor(1))
    return loop


def _unpatched_loop() -> asyncio.AbstractEventLoop:
    """Returns a loop whose selector and executors use threads of the system."""
    loop = asyncio.SelectorEventLoop(unpatched.selector())
    loop.set_default_executor(SystemExecutor(_EXECUTOR_THREADS))
    # The executor in which `sync_to_async` runs calls that must stay on one thread, as the ORM's.
    use_executor(loop, SystemExecutor(1))
    return loop


class ServerTasks:
    """Async views in the loops of an ASGI server. Each call acts on the running loop."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def run(self, name: str, start: Start, context: Context) -> None:
        """Runs a task in the running loop; needs no thread."""
        loop = asyncio.get_running_loop()
        # The task copies the context that this call runs in.
        task = context.run(loop.create_task, start(), name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard, context=Context())

    async def join(self, timeout: float) -> None:
        """Waits until no view runs, ``timeout`` seconds at most."""
        loop = asyncio.get_running_loop()
        if tasks := [task for task in list(self._tasks) if task.get_loop() is loop]:
            await asyncio.wait(tasks, timeout=timeout)


SERVER_TASKS = ServerTasks()

_loop = BackgroundLoop()


def run(name: str, start: Start, context: Context) -> None:
    """Runs a task on this process's background loop: see :meth:`BackgroundLoop.run`."""
    _loop.run(name, start, context)


def background() -> BackgroundLoop:
    """Returns this process's background loop."""
    return _loop


def tasks() -> set[asyncio.Task[None]]:
    """Returns the tasks of this process's background loop, and those in the loops of servers."""
    return _loop._tasks | SERVER_TASKS._tasks


# Async callbacks that belong to no other loop run in this one.
CloseCallbacks.run_async = staticmethod(run)
CloseCallbacks.with_own_thread = staticmethod(with_own_thread)


def join(timeout: float) -> bool:
    """Sleeps until no async view runs: see :meth:`BackgroundLoop.join`."""
    return _loop.join(timeout)


def dismiss(timeout: float) -> bool:
    """Ends this process's background loop: see :meth:`BackgroundLoop.dismiss`."""
    return _loop.dismiss(timeout)


renew_at_fork(globals(), _loop=BackgroundLoop)
# The parent's do not run there.
at_fork(SERVER_TASKS._tasks.clear)
