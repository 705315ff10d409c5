"""
Functions that run beside a view and belong to its connection: ``start``, ``astart``, ``every``.

They have the view's context and care for database connections as it does. The end of the connection
reaches them as an exception, and their exceptions end the view's connection as its own would.
"""

from __future__ import annotations

import asyncio
import contextvars
from abc import ABC, abstractmethod
from concurrent.futures import InvalidStateError
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from dwebsocket.api.arguments import as_timeout
from dwebsocket.api.waiting import loop_hub
from dwebsocket.api.waiting.steps import Call, arun, run
from dwebsocket.compat import unpatched
from dwebsocket.compat.asyncio import running_loop
from dwebsocket.compat.system import monotonic
from dwebsocket.exceptions import UsageError
from dwebsocket.request import context, database, worlds
from dwebsocket.telemetry import clock

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from concurrent.futures import Future

    from django.db.backends.base.base import BaseDatabaseWrapper

    from dwebsocket.api.base import Base
    from dwebsocket.api.waiting.steps import Steps
    from dwebsocket.api.waiting.waiter import Waiter

# Seconds that the end of a view waits for its helpers.
_MOMENT_S = 1.0

#: Whether the end of the connection raises from the first call on, as it does in helpers.
told_by_exception: contextvars.ContextVar[bool] = contextvars.ContextVar(
    "told_by_exception", default=False
)


class Running:
    """Something that runs beside a view. Any thread may use it."""

    def __init__(self, waiter: Waiter) -> None:
        self._waiter = waiter
        # Any thread may settle it, and wait for it.
        self._ended: Future[None] = unpatched.future()

    @property
    def is_running(self) -> bool:
        """Whether the function has not returned yet; of a ticker, whether a call is to come."""
        return not self._ended.done()

    def join(self, timeout: float | None = None) -> bool:
        """
        Waits until the function has returned and no other call is to come. Not in an event loop.

        Args:
            timeout: Seconds. None waits as long as it takes.

        Returns:
            Whether that is so.

        Raises:
            UsageError: An event loop runs in this thread.
            TypeError, ValueError: ``timeout`` is no number, or negative.
        """
        timeout = as_timeout(timeout)
        if running_loop() is not None:
            raise UsageError(
                "this would block the event loop: use `await asyncio.to_thread(….join)`"
            )
        return self._waiter.wait_until(self._ended, timeout)

    def _end(self) -> None:
        # Of several threads the first one does.
        with suppress(InvalidStateError):
            self._ended.set_result(None)


class Helper(Running):
    """A function that :meth:`dwebsocket.WebSocket.start` has started. Any thread may use it."""

    def __init__(self, name: str, waiter: Waiter) -> None:
        super().__init__(waiter)
        self._name = name

    def __repr__(self) -> str:
        return f"<Helper {self._name} {'running' if self.is_running else 'ended'}>"


class View(ABC):
    """
    A view as long as it runs, and the functions that run beside it.

    Attributes:
        name: Module and qualified name.
        world: The context around each of them.
        websocket: Its connection.
    """

    def __init__(self, name: str, websocket: Base) -> None:
        self.name = name
        self.world = websocket._world
        self.websocket = websocket
        self._helpers: set[Helper] = set()
        self._tasks: set[Task] = set()
        self._tickers: set[Ticker] = set()

    @property
    def is_over(self) -> bool:
        """Whether its connection has ended."""
        return self.websocket._end() is not None

    @abstractmethod
    def failed(self, error: BaseException) -> bool:
        """Reports a helper's exception and closes the connection; false to raise it again."""

    def start(
        self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Helper:
        """
        Starts ``function`` on a thread of its own.

        Raises:
            RuntimeError: The system gives no more threads.
        """
        name = f"{self.name} {_name_of(function)}"
        helper = Helper(name, self.websocket._waiter)
        own, databases = contextvars.copy_context(), database.shareable()

        def run() -> None:
            try:
                own.run(_run, self, databases, lambda: function(*args, **kwargs))
            finally:
                self._helpers.discard(helper)
                helper._end()

        self._helpers.add(helper)
        try:
            self.websocket._spawn(name, run)
        except BaseException:
            self._helpers.discard(helper)
            raise
        return helper

    def start_task(
        self,
        function: Callable[..., Coroutine[Any, Any, Any]],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Task:
        """Starts the coroutine function as a task of the running loop."""
        name = f"{self.name} {_name_of(function)}"
        # Not by the loop's factory, whose tasks have other names.
        work, waiter = _arun(self, lambda: function(*args, **kwargs)), self.websocket._waiter
        task = Task(work, waiter, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def tick(self, seconds: float, call: Callable[[], Any]) -> Ticker:
        """Calls ``call`` every ``seconds`` on a thread."""
        ticker = ThreadTicker(self, seconds, call, self._tickers.discard)
        self._tickers.add(ticker)
        ticker.begin()
        return ticker

    def tick_in_loop(self, seconds: float, call: Callable[[], Coroutine[Any, Any, Any]]) -> Ticker:
        """Awaits ``call`` every ``seconds`` in the running loop."""
        ticker = self.start_task(_tick_in_loop, (self, seconds, call), {})
        self._tickers.add(ticker)
        ticker.add_done_callback(self._tickers.discard)
        return ticker

    @property
    def are_running(self) -> bool:
        """Whether one of them has not ended; a thread of ``every`` does not count."""
        return bool(self._helpers or self._tasks)

    def join(self) -> None:
        """
        Waits a moment for all of them to end. To be called when the connection has ended.

        Tasks that do not end in time are cancelled.
        """
        run(self._wait_for_all())

    async def ajoin(self) -> None:
        """Waits for all of them as :meth:`join`, without blocking the event loop."""
        await arun(self._wait_for_all())

    def _wait_for_all(self) -> Steps[None]:
        self._stop_tickers()
        deadline = monotonic() + _MOMENT_S
        current = None if running_loop() is None else asyncio.current_task()
        tasks = [task for task in self._tasks if task is not current]
        wait_until = self.websocket._waiter.wait_until
        try:
            for each in [*self._helpers, *tasks]:
                left = max(0.0, deadline - monotonic())
                yield Call(wait_until, loop_hub.wait_until, each._ended, left)
        finally:
            for task in tasks:
                task.stop()

    def _stop_tickers(self) -> None:
        for ticker in list(self._tickers):
            ticker.stop()


class Ticker(Running, ABC):
    """
    The result of :meth:`dwebsocket.WebSocket.every`. Any thread may use it.

    It has the names of a :class:`Helper`, and ``stop``: a function that :meth:`WebSocket.start` has
    started cannot be stopped from outside.
    """

    @abstractmethod
    def stop(self) -> None:
        """Stops the calls. One under way on a thread goes on; a coroutine is cancelled."""


class ThreadTicker(Ticker):
    """
    Calls a function periodically, each time on a thread for that call only.

    One that has a database connection open waits for the next call, if that comes before the
    connection has been idle for too long.
    """

    def __init__(
        self,
        view: View,
        seconds: float,
        call: Callable[[], Any],
        on_stop: Callable[[Ticker], object],
    ) -> None:
        self._view = view
        super().__init__(view.websocket._waiter)
        self._spawn = view.websocket._spawn
        self._seconds = seconds
        self._call: Callable[[], Any] | None = call
        self._on_stop = on_stop
        self._context = contextvars.copy_context()
        self._databases = database.shareable()
        self._due = clock.now() + seconds
        self._cancel: Callable[[], object] = lambda: None
        # Wakes the thread that waits.
        self._wake: Callable[[], object] = lambda: None
        self._is_at_call = False

    def begin(self) -> None:
        """Sets the timer of the next call. To be called once for each call."""
        self._cancel = self._waiter.call_later(max(0.0, self._due - clock.now()), self._fire)

    def stop(self) -> None:
        """Stops; a call that is under way goes on."""
        self._call = None
        self._cancel()
        self._wake()
        self._on_stop(self)
        self._note_end()

    def _note_end(self) -> None:
        # In this order: `_fire` sets the second one first.
        if self._call is None and not self._is_at_call:
            self._end()

    def _fire(self) -> None:
        self._is_at_call = True
        if self._call is None or self._view.is_over:
            self._is_at_call = False
            self.stop()
            return
        try:
            self._spawn(f"{self._view.name} every {self._seconds:g} s", self._tick)
        except RuntimeError as error:
            self._is_at_call = False
            self._give_up(error)

    def _give_up(self, error: RuntimeError) -> None:
        """Ends the view, too: there are no more threads."""
        self.stop()
        self._view.failed(error)

    def _tick(self) -> None:
        try:
            self._make_calls()
        except RuntimeError as error:
            self._give_up(error)
        except BaseException:
            self.stop()
            raise
        finally:
            self._is_at_call = False
            self._note_end()
        if self._call is not None:
            try:
                self.begin()
            except RuntimeError as error:
                self._give_up(error)

    def _make_calls(self) -> None:
        goes_on = True
        while goes_on and (call := self._call) is not None:
            if self._view.is_over or not self._context.run(_run, self._view, self._databases, call):
                self.stop()
                return
            self._due = _next(self._due, self._seconds)
            goes_on = self._wait()

    def _wait(self) -> bool:
        """Waits for the next call; false when this thread has no database connection for it."""
        left, until_due = database.give_back_idle(), max(0.0, self._due - clock.now())
        if left is None or left < until_due:
            return False
        # The timer belongs to a thread of the system, also where this one is green.
        future = unpatched.future()

        def wake() -> None:
            future.cancel()

        self._wake = wake
        self._cancel = self._waiter.call_later(until_due, wake)
        if self._call is not None:
            self._waiter.wait_until(future, None)
        self._cancel()
        return True


class Task(Ticker, asyncio.Task[None]):
    """The result of :meth:`dwebsocket.WebSocket.astart`, and of ``every`` with a coroutine."""

    def __init__(self, coroutine: Coroutine[Any, Any, None], waiter: Waiter, *, name: str) -> None:
        Ticker.__init__(self, waiter)
        asyncio.Task.__init__(self, coroutine, loop=asyncio.get_running_loop(), name=name)
        self.add_done_callback(lambda _: self._end())

    def stop(self) -> None:
        """Cancels the task, and with it a call that is under way."""
        # A closed loop raises RuntimeError; it runs no task any more.
        with suppress(RuntimeError):
            self.get_loop().call_soon_threadsafe(self.cancel)


async def _tick_in_loop(
    view: View, seconds: float, call: Callable[[], Coroutine[Any, Any, Any]]
) -> None:
    due, hub = clock.now() + seconds, loop_hub.current()
    await hub.sleep_until(due)
    while not view.is_over:
        await call()
        due = _next(due, seconds)
        await hub.sleep_until(due)


def _next(due: float, seconds: float) -> float:
    """
    Returns the time of the next call after the one at ``due``.

    All times are whole multiples of ``seconds`` apart, so that nothing drifts. Those that passed
    during a long call are skipped.
    """
    missed = max(0.0, (clock.now() - due) // seconds)
    return due + seconds * (missed + 1)


def _run(view: View, databases: dict[str, BaseDatabaseWrapper], call: Callable[[], Any]) -> bool:
    """Runs a helper's function on this thread. Whether it returned by itself."""
    context.enter_thread()
    told_by_exception.set(True)
    try:
        with database.in_use(databases), worlds.entered(view.world):
            call()
    except BaseException as error:
        if not view.failed(error):
            raise
        return False
    return True


async def _arun(view: View, call: Callable[[], Coroutine[Any, Any, Any]]) -> None:
    told_by_exception.set(True)
    try:
        await (call() if view.world is None else view.world.arun(call))
    except asyncio.CancelledError:
        raise
    except BaseException as error:
        if not view.failed(error):
            raise


def _name_of(function: Callable[..., Any]) -> str:
    return getattr(function, "__qualname__", type(function).__name__)
