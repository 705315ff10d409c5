"""Callbacks of a project at the end of a connection: ``websocket.on_close(…)``."""

from __future__ import annotations

import contextvars
import functools
import inspect
import logging
from collections import deque
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from asgiref.sync import iscoroutinefunction

from dwebsocket.api.waiting.waiter import THREAD
from dwebsocket.compat import unpatched
from dwebsocket.compat.asyncio import running_loop
from dwebsocket.compat.system import at_fork
from dwebsocket.request import context, database, worlds
from dwebsocket.telemetry.records import more_of

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Coroutine
    from concurrent.futures import Future

    from django.db.backends.base.base import BaseDatabaseWrapper

    from dwebsocket._core import Connection
    from dwebsocket.api.waiting.waiter import Waiter
    from dwebsocket.request.worlds import World

    Spawn = Callable[[str, Callable[[], None]], None]
    Make = Callable[[], Coroutine[Any, Any, Any]]
    RunAsync = Callable[[str, Make, contextvars.Context], object]

_log = logging.getLogger("dwebsocket")

# Seconds between two checks whether the loop of an async callback was closed: loops do not tell.
_LOOK_S = 1.0
# Exceptions that end the process: green threads share the main thread.
_EXITS = (KeyboardInterrupt, SystemExit)

# Callbacks of connections that are open, and of ended ones whose callbacks have not all run.
_unfinished: set[CloseCallbacks] = set()


@dataclass(frozen=True)
class _Callback:
    function: Callable[..., Any]
    args: tuple[Any, ...]
    # Holds the language, the time zone and all else that middleware has set.
    context: contextvars.Context
    # The loop in which an async callback was registered, and runs; None without one.
    loop: asyncio.AbstractEventLoop | None
    databases: dict[str, BaseDatabaseWrapper]
    # The context around the call.
    world: World | None


class CloseCallbacks:
    """
    The callbacks of one connection. Any thread may use it.

    They run one after the other, in the order in which they came, on a thread (green thread) of
    their own beside the view, as soon as the connection has ended. One that comes later still runs.
    """

    #: Runs a coroutine in the loop of the process; set by the module that has it.
    run_async: RunAsync
    #: Awaits a coroutine, whose sync code has a thread of its own; set by the module with those.
    with_own_thread: Callable[[Make], Coroutine[Any, Any, None]]

    def __init__(self, name: str) -> None:
        """Begins with the connection's ``name``, for the thread and for the log."""
        self._name = name
        self._lock = unpatched.lock()
        self._waiting: deque[_Callback] = deque()
        self._connection: Connection | None = None
        self._has_ended = False
        self._is_running = False
        # The future of :meth:`done`, once it was asked for.
        self._done: Future[None] | None = None
        self._waiter: Waiter
        self._spawn: Spawn

    def add(self, function: Callable[..., Any], args: tuple[Any, ...], world: World | None) -> None:
        """Has ``function(*args)`` called at the end, which may be now, within ``world``."""
        loop = running_loop() if iscoroutinefunction(function) else None
        own = contextvars.copy_context()
        callback = _Callback(function, args, own, loop, database.shareable(), world)
        with self._lock:
            self._waiting.append(callback)
            if self._connection is not None:
                _unfinished.add(self)
        self._start()

    def attach(
        self, connection: Connection, waiter: Waiter, spawn: Spawn, world: World | None
    ) -> None:
        """
        To be called when there is a connection that can end; again after an exception.

        Args:
            world: The context to enter around the callbacks that there are.

        Raises:
            RuntimeError: The system gives no thread.
        """
        with self._lock:
            self._waiter, self._spawn, self._connection = waiter, spawn, connection
            # Callbacks of middleware, which came before the handshake was validated.
            self._waiting = deque(replace(each, world=world) for each in self._waiting)
            if self._waiting:
                _unfinished.add(self)
        try:
            waiter.at_end(connection, self._on_end)
        except BaseException:
            self._connection = None
            raise

    @property
    def is_attached(self) -> bool:
        """Whether there is a connection that can end."""
        return self._connection is not None

    def forget(self) -> None:
        """Drops all of them: another process goes on with the connection."""
        with self._lock:
            self._waiting.clear()
            _unfinished.discard(self)

    @property
    def is_due(self) -> bool:
        """Whether the connection has ended, and callbacks are yet to run."""
        return self._connection is not None and self._connection.end() is not None

    def done(self) -> Future[None]:
        """Returns a future that is done when all of them have run."""
        future: Future[None] = unpatched.future()
        with self._lock:
            if self._waiting or self._is_running:
                self._done = self._done or future
                return self._done
        future.set_result(None)
        return future

    def _on_end(self) -> None:
        self._has_ended = True
        self._start()

    def _start(self) -> None:
        with self._lock:
            starts = self._has_ended and bool(self._waiting) and not self._is_running
            self._is_running = self._is_running or starts
        if starts:
            try:
                self._spawn(f"{self._name} on_close", self._run)
            except RuntimeError as error:
                text = "No thread for the callbacks of on_close of %s: %s%s"
                # Clients can cause as many ends as they like.
                if (more := more_of(text)) is not None:
                    _log.error(text, self._name, error, more)
                # On this thread they delay the callbacks of other connections, but none is lost.
                self._run()

    def _run(self) -> None:
        try:
            while (callback := self._next()) is not None:
                self._call(callback)
        except BaseException:
            # This green thread ends, and perhaps the process. Another one has the other callbacks.
            self._spawn(f"{self._name} on_close", self._run)
            raise

    def _next(self) -> _Callback | None:
        with self._lock:
            if self._waiting:
                return self._waiting.popleft()
            self._is_running = False
            _unfinished.discard(self)
            done, self._done = self._done, None
        if done is not None:
            done.set_result(None)
        return None

    def _call(self, callback: _Callback) -> None:
        try:
            if iscoroutinefunction(callback.function):
                self._wait_for(callback, lambda: callback.function(*callback.args))
                return
            with database.in_use(callback.databases):
                result = callback.context.run(_settled, callback)
            if inspect.iscoroutine(result):
                self._wait_for(callback, lambda: result)
        except BaseException as error:
            # All of them, such as a CancelledError: the next callback has a right to be called.
            if self._waiter is not THREAD and isinstance(error, _EXITS):
                raise
            # In its context, by which packages such as Sentry know the request. A copy: a task may
            # still be about to leave that one.
            failed = ("A callback of on_close failed: %r of %s", callback.function, self._name)
            callback.context.copy().run(_log.exception, *failed)

    def _wait_for(self, callback: _Callback, make: Make) -> None:
        """Runs a coroutine in the loop of its callback, or else in that of the process."""
        # It may take long, and the thread does nothing meanwhile.
        database.release_idle()
        if (world := callback.world) is not None:
            make = functools.partial(world.arun, make)
        # The loop may have a thread of the system, although this one is green.
        done = unpatched.future()
        tasks: list[asyncio.Task[None]] = []

        async def call() -> None:
            try:
                await type(self).with_own_thread(make)
            except BaseException as error:
                # Also one that asks for the end of the process: a task that raises it ends the loop
                # of the server, and with it all connections.
                done.set_exception(error)
            else:
                done.set_result(None)

        loop = callback.loop
        if loop is not None and loop.is_running():
            # The list keeps the task alive: the loop itself has only a weak reference to it.
            start = lambda: tasks.append(loop.create_task(call()))  # noqa: E731
            loop.call_soon_threadsafe(start, context=callback.context)
        else:
            loop = None
            type(self).run_async(f"{self._name} on_close", call, callback.context)
        while not self._waiter.wait_until(done, None if loop is None else _LOOK_S):
            if loop is not None and loop.is_closed():
                raise RuntimeError("its event loop was closed before it had ended")
        done.result()


def _settled(callback: _Callback) -> Any:
    context.enter_thread()
    with worlds.entered(callback.world):
        return callback.function(*callback.args)


def pending() -> list[Future[None]]:
    """Returns :meth:`CloseCallbacks.done` of connections that have ended, as long as it is not."""
    return [callbacks.done() for callbacks in list(_unfinished) if callbacks.is_due]


def is_pending() -> bool:
    """Whether a connection of this process has ended whose callbacks have not all run."""
    return any(callbacks.is_due for callbacks in list(_unfinished))


at_fork(_unfinished.clear)
