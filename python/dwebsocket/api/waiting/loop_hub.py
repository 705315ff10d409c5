"""
How event loops wait for connections: one descriptor a loop, however many connections.

The engine puts ready connections on a list and makes the descriptor readable once; the loop then
wakes the tasks of all connections on the list.
"""

from __future__ import annotations

import asyncio
import itertools
import socket
import time
from collections import deque
from contextlib import suppress
from contextvars import Context
from types import BuiltinFunctionType, SimpleNamespace
from typing import TYPE_CHECKING, Any, Generic, TypeVar
from weakref import WeakKeyDictionary, ref

from dwebsocket import _core
from dwebsocket.api import callbacks
from dwebsocket.compat.asyncio import leave_to_loop, running_loop
from dwebsocket.compat.system import at_fork
from dwebsocket.telemetry import clock

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator
    from concurrent.futures import Future

    from dwebsocket.api.waiting.waiter import Watch, Watched

T = TypeVar("T")

# Watches nothing: only its time ends the wait.
_NOTHING = SimpleNamespace(unwatch=lambda hub, token: None)


class LoopHub:
    """One event loop's hub: wakes the tasks that wait for the engine. For its loop's thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        #: The engine's part of it.
        self.core = _core.Hub()
        self._waiting: dict[int, asyncio.Future[None]] = {}
        self._callbacks: dict[int, Callable[[], None]] = {}
        self._tokens = itertools.count()
        # A weak reference: a strong one would keep the loop in `_hubs` for ever.
        self._loop = ref(loop)
        #: The handlers of this loop: see :class:`dwebsocket.runners.handler.LoopHome`.
        self.handlers: Any = None
        # In an empty context: otherwise the loop would keep the context of the first view here.
        context = Context()
        try:
            context.run(loop.add_reader, self.core.fileno(), self._wake)
        except NotImplementedError:
            # The loop that Python uses on Windows watches no descriptors.
            self._listening = context.run(loop.create_task, self._listen(loop))
            leave_to_loop(self._listening)

    async def wait(self, connection: Watched, watch: Watch, timeout: float | None = None) -> None:
        """
        Sleeps until the engine signals ``watch``, ``timeout`` seconds at most.

        Args:
            connection: The one that ``watch`` belongs to.
            watch: One that its ``unwatch`` takes back: ``watch_inbox`` or ``watch_outbox``.
            timeout: None sleeps as long as it takes.

        Cancelling it loses no message, and a cancellation is never lost: before Python 3.12
        ``asyncio.wait_for``, which is not used here, drops one that comes together with the
        wake-up.
        """
        loop = asyncio.get_running_loop()
        token = next(self._tokens)
        future = self._waiting[token] = loop.create_future()
        cancel = None if timeout is None else settle_later(future, timeout)
        try:
            watch(self.core, token)
            await future
        finally:
            # Otherwise each wait that ends without a message would leave a watch behind.
            connection.unwatch(self.core, token)
            del self._waiting[token]
            if cancel is not None:
                cancel()

    async def sleep_until(self, due: float) -> None:
        """Sleeps until a moment of :mod:`dwebsocket.telemetry.clock`, which a test may step."""
        while (left := due - clock.now()) > 0:
            await self.wait(_NOTHING, _NOTHING.unwatch, left)

    def call_on(self, callback: Callable[[], None]) -> int:
        """
        Returns a token: the loop calls ``callback`` each time the engine announces it.

        Any thread may call this, and :meth:`forget`.
        """
        token = next(self._tokens)
        self._callbacks[token] = callback
        return token

    def forget(self, token: int) -> None:
        """Ends the calls for a token of :meth:`call_on`."""
        self._callbacks.pop(token, None)

    def look_again(self) -> None:
        """Wakes all waiting tasks to look at the clock again. Any thread may call it."""
        loop = self._loop()
        if loop is not None:
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(self._wake_all)

    def _wake_all(self) -> None:
        for future in self._waiting.values():
            settle(future)

    async def _listen(self, loop: asyncio.AbstractEventLoop) -> None:
        """Reads the descriptor, in place of watching it."""
        of_hub = socket.socket(fileno=self.core.fileno())
        try:
            # Its own: when the loop is closed, the collector closes it, perhaps before this ends.
            descriptor = of_hub.dup()
        finally:
            of_hub.detach()
        descriptor.settimeout(0)
        with descriptor:
            while await loop.sock_recv(descriptor, 64):
                # Not in this task: it resumes others.
                loop.call_soon(self._wake)

    def _wake(self) -> None:
        tokens = deque(self.core.wake())
        waiting, callbacks = self._waiting, self._callbacks
        try:
            while tokens:
                token = tokens.popleft()
                if (future := waiting.get(token)) is not None:
                    settle(future)
                elif (callback := callbacks.get(token)) is not None:
                    callback()
        finally:
            # The error of one callback takes no wake-up of others along.
            for token in tokens:
                self.core.announce(token)


def call_in(loop: asyncio.AbstractEventLoop, function: Callable[[], object]) -> None:
    """Calls ``function`` in a loop, and waits for it. Any thread may call it, also the loop's."""

    async def call() -> None:
        function()

    if running_loop() is loop:
        function()
    else:
        asyncio.run_coroutine_threadsafe(call(), loop).result()


def settle(future: asyncio.Future[None]) -> None:
    """Sets the result of ``future``, unless it is done. On its loop's thread."""
    if not future.done():
        future.set_result(None)


def settle_later(future: asyncio.Future[None], seconds: float) -> Callable[[], object]:
    """
    Settles a future of the running loop after a time. Returns a function that cancels this.

    Also where a test has frozen the time, by which an event loop's own timers are never due.
    """
    loop = future.get_loop()
    if isinstance(time.monotonic, BuiltinFunctionType):
        return loop.call_later(seconds, settle, future).cancel

    def settle_soon() -> None:
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(settle, future)

    return callbacks.call_later(seconds, settle_soon)


class Again(Generic[T]):
    """An awaitable that calls a coroutine function each time it is awaited."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[[], Coroutine[Any, Any, T]]) -> None:
        self._function = function

    def __await__(self) -> Generator[Any, None, T]:
        return self._function().__await__()


class LoopEvent:
    """One event that happens once. Tasks of one loop wait for it, any thread may set it."""

    def __init__(self) -> None:
        # No lock is needed: each side first sets its own attribute, then reads the other's.
        self._is_set = False
        self._sleepers: tuple[asyncio.Future[None], ...] = ()

    def set(self) -> None:
        """Wakes the tasks, if their loop is not closed."""
        self._is_set = True
        for sleeper in self._sleepers:
            with suppress(RuntimeError):
                sleeper.get_loop().call_soon_threadsafe(settle, sleeper)

    async def wait(self, timeout: float | None = None) -> bool:
        """Sleeps until it is set, ``timeout`` seconds at most. False when the time was up."""
        loop = asyncio.get_running_loop()
        sleeper = loop.create_future()
        self._sleepers = (*self._sleepers, sleeper)
        try:
            if not self._is_set:
                cancel = None if timeout is None else settle_later(sleeper, timeout)
                try:
                    await sleeper
                finally:
                    if cancel is not None:
                        cancel()
        finally:
            self._sleepers = tuple(each for each in self._sleepers if each is not sleeper)
        return self._is_set


async def wait_until(future: Future[Any], timeout: float | None) -> bool:
    """Waits in a task until a future that any thread may settle is done. Whether it is."""
    if not future.done():
        done = LoopEvent()
        future.add_done_callback(lambda _: done.set())
        await done.wait(None if timeout is None else max(0.0, timeout))
    return future.done()


# The hub that was used last, most often the only one.
_latest: Callable[[], LoopHub | None] = lambda: None  # noqa: E731
_hubs: WeakKeyDictionary[asyncio.AbstractEventLoop, LoopHub] = WeakKeyDictionary()


def current() -> LoopHub:
    """Returns the running loop's hub."""
    global _latest
    loop = asyncio.get_running_loop()
    hub = _latest()
    if hub is None or hub._loop() is not loop:
        hub = _hubs.get(loop)
        if hub is None:
            hub = _hubs[loop] = LoopHub(loop)
        _latest = ref(hub)
    return hub


def current_core() -> _core.Hub:
    """Returns the engine's hub of the running loop."""
    return current().core


def forget_closed() -> None:
    """Drops the hubs of closed loops, to which other code may still hold references."""
    for loop in list(_hubs):
        if loop.is_closed():
            _hubs.pop(loop, None)


def look_again() -> None:
    """Wakes the waiting tasks of all loops to look at the clock, which a test has stepped."""
    for hub in list(_hubs.values()):
        hub.look_again()


at_fork(_hubs.clear)
