"""
How event loops wait for connections: one descriptor a loop, however many connections.

The engine puts ready connections on a list and rings once; the loop wakes all that are on it.
"""

from __future__ import annotations

import asyncio
import itertools
import os
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from contextlib import suppress
from contextvars import Context
from typing import Any, Generic, Protocol, TypeVar
from weakref import WeakKeyDictionary, ref

from dwebsocket import _core
from dwebsocket.compat.asyncio import running_loop

Watch = Callable[[_core.Hub, int], None]
T = TypeVar("T")


class Watched(Protocol):
    """What can ring, such as a connection."""

    @property
    def unwatch(self) -> Watch:
        """Takes back a watch that has not rung."""


class LoopHub:
    """One event loop's ear at the engine. Belongs to its loop's thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._hub = _core.Hub()
        self._waiting: dict[int, asyncio.Future[None]] = {}
        self._tokens = itertools.count()
        # Weakly, or the loop would never leave `_hubs`.
        self._loop = ref(loop)
        self._rung: deque[int] = deque()
        self._ringing = False
        # In a context of its own: the loop would keep that of the view which asks first.
        Context().run(loop.add_reader, self._hub.fileno(), self._wake)

    async def wait(self, connection: Watched, watch: Watch, timeout: float | None = None) -> None:
        """
        Sleeps until the engine rings for ``watch``, ``timeout`` seconds at most.

        Args:
            connection: The one that ``watch`` belongs to.
            watch: Its ``watch_inbox`` or ``watch_outbox``, whichever its ``unwatch`` takes back.
            timeout: None sleeps as long as it takes.

        Cancelling it loses nothing, and is never lost itself: before Python 3.12
        ``asyncio.wait_for`` swallows a cancellation that comes together with the wake-up.
        """
        loop = asyncio.get_running_loop()
        token = next(self._tokens)
        future = self._waiting[token] = loop.create_future()
        timer = None if timeout is None else loop.call_later(timeout, _settle, future)
        try:
            watch(self._hub, token)
            await future
        finally:
            # Without a message it would stay there, one more for each wait on a quiet connection.
            connection.unwatch(self._hub, token)
            del self._waiting[token]
            if timer is not None:
                timer.cancel()

    def ring(self, token: int) -> None:
        """
        Wakes whoever waits under ``token``, as the engine does. Any thread may call it.

        Other threads' rings that come together wake the loop once.
        """
        loop = self._loop()
        if running_loop() is loop:
            self._wake_one(token)
            return
        self._rung.append(token)
        if not self._ringing and loop is not None:
            self._ringing = True
            # A loop that is closed has nobody left who waits.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(self._answer)

    def look_again(self) -> None:
        """Lets all that waits look at the clock again. Any thread may call it."""
        loop = self._loop()
        if loop is not None:
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(self._wake_all)

    def _wake_all(self) -> None:
        for future in self._waiting.values():
            _settle(future)

    def _answer(self) -> None:
        # First: who rings from here on is not on the list yet.
        self._ringing = False
        while self._rung:
            self._wake_one(self._rung.popleft())

    def _wake(self) -> None:
        for token in self._hub.wake():
            self._wake_one(token)

    def _wake_one(self, token: int) -> None:
        if (future := self._waiting.get(token)) is not None:
            _settle(future)


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


class Again(Generic[T]):
    """What a coroutine function gives, each time it is awaited."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[[], Coroutine[Any, Any, T]]) -> None:
        self._function = function

    def __await__(self) -> Generator[Any, None, T]:
        return self._function().__await__()


class LoopEvent:
    """One event that happens once. One task waits for it, any thread may set it."""

    def __init__(self) -> None:
        # Without a lock: each side sets its own first, and looks for the other's then.
        self._is_set = False
        self._sleeper: asyncio.Future[None] | None = None

    def set(self) -> None:
        """Lets the task go on, whose loop may be gone."""
        self._is_set = True
        sleeper = self._sleeper
        if sleeper is not None:
            with suppress(RuntimeError):
                sleeper.get_loop().call_soon_threadsafe(_settle, sleeper)

    async def wait(self, timeout: float | None = None) -> bool:
        """Sleeps until it is set, ``timeout`` seconds at most. False when the time was up."""
        loop = asyncio.get_running_loop()
        sleeper = self._sleeper = loop.create_future()
        if not self._is_set:
            timer = None if timeout is None else loop.call_later(timeout, _settle, sleeper)
            try:
                await sleeper
            finally:
                if timer is not None:
                    timer.cancel()
        return self._is_set


# The one that was asked for last, most often the only one.
_latest: Callable[[], LoopHub | None] = lambda: None  # noqa: E731
_hubs: WeakKeyDictionary[asyncio.AbstractEventLoop, LoopHub] = WeakKeyDictionary()


def current() -> LoopHub:
    """Gives the running loop's hub."""
    global _latest
    loop = asyncio.get_running_loop()
    hub = _latest()
    if hub is None or hub._loop() is not loop:
        hub = _hubs.get(loop)
        if hub is None:
            hub = _hubs[loop] = LoopHub(loop)
        _latest = ref(hub)
    return hub


def ear() -> tuple[_core.Hub, asyncio.AbstractEventLoop]:
    """Gives the running loop's end of the engine, and that loop."""
    return current()._hub, asyncio.get_running_loop()


def forget_closed() -> None:
    """Drops the hubs of loops that are closed, which others may go on holding."""
    for loop in list(_hubs):
        if loop.is_closed():
            _hubs.pop(loop, None)


def look_again() -> None:
    """Lets all that waits in any loop look at the clock again, because a test has stepped it."""
    for hub in list(_hubs.values()):
        hub.look_again()


os.register_at_fork(after_in_child=_hubs.clear)
