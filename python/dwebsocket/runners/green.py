"""
What gevent and eventlet have in common.

A hub (the event loop of a thread that runs green threads) watches one descriptor for all its
connections, that of its :class:`HubWatcher`: the engine puts ready connections on a list and wakes
the hub once. :mod:`dwebsocket.hub` does the same for event loops.

After a fork the child has copies of its parent's green threads. To them their connections are
closed, and the child must not read the descriptor of the parent's hub: it would take the parent's
wake-ups.
"""

from __future__ import annotations

import itertools
import os
import threading
import time
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from dwebsocket import _core, database, unpatched
from dwebsocket.waiting import THREAD, GreenWaiter

if TYPE_CHECKING:
    from collections.abc import Callable

    from dwebsocket.connection import Connection
    from dwebsocket.hub import Watched
    from dwebsocket.runners.contract import Job
    from dwebsocket.waiting import Call, Event, Look, Message, T, Watch

Hub = Any
GreenThread = Any
Sleeper = TypeVar("Sleeper")

# The longest sleep that is asked of a hub, which cannot count to infinity.
_LONGEST_S = 86_400.0
# How long a view may send without letting others run.
_TURN_S = 0.01
# How often a thread looks whether the views of another thread's hub have ended.
_GLANCE_S = 0.01


class HubWatcher(ABC, Generic[Sleeper]):
    """The descriptor by which the engine wakes one hub. Belongs to the hub's thread."""

    def __init__(self, hub: Hub) -> None:
        self.hub = hub
        self.is_parents = False
        self._bell = _core.Hub()
        self._sleepers: dict[int, Sleeper] = {}
        self._tokens = itertools.count()
        # When each coarse sleep ends, the first one first: all are equally long. One timer is for
        # all.
        self._coarse_ends: dict[int, float] = {}
        self._has_alarm = False
        # Calls to make in the hub, where other tokens wake a green thread.
        self._calls: dict[int, Call] = {}

    def wait(self, connection: Watched, watch: Watch, timeout: float | None) -> None:
        """As :meth:`dwebsocket.waiting.GreenWaiter.wait`; may return early."""
        token = next(self._tokens)
        # Only the hub reads the descriptor, so no wake-up comes before the sleep has begun.
        watch(self._bell, token)
        try:
            self._sleep(token, None if timeout is None else min(timeout, _LONGEST_S))
        finally:
            # Otherwise each wait that ends without a message would leave one more watch there.
            connection.unwatch(self._bell, token)

    def take_coarse(
        self, connection: Connection, time_s: float, text_as_bytes: bool
    ) -> Message | None:
        """As :meth:`dwebsocket.waiting.GreenWaiter.take_coarse`, without a timer of its own."""
        token = next(self._tokens)
        if not connection.listen(self._bell, token):
            return connection.pop(text_as_bytes)
        message = None
        self._coarse_ends[token] = time.monotonic() + time_s
        if not self._has_alarm:
            self._set_alarm(time_s)
        try:
            self._sleep(token, None)
            message = connection.pop(text_as_bytes)
        finally:
            self._coarse_ends.pop(token, None)
            if message is None:
                connection.unwatch(self._bell, token)
        return message

    def at_end(self, connection: Connection, call: Call) -> None:
        """As :meth:`dwebsocket.waiting.Waiter.at_end`, on the hub's own thread."""
        token = next(self._tokens)
        self._calls[token] = call
        connection.watch_end(self._bell, token)

    @abstractmethod
    def call_later(self, delay: float, call: Call) -> Call:
        """As :meth:`dwebsocket.waiting.Waiter.call_later`, on the hub's own thread."""

    def _set_alarm(self, time_s: float) -> None:
        self._has_alarm = True
        self._call_later(time_s, self._end_coarse_sleeps)

    def _end_coarse_sleeps(self) -> None:
        self._has_alarm = False
        if self.is_parents:
            return
        now = time.monotonic()
        for token in [token for token, end in self._coarse_ends.items() if end <= now]:
            self._coarse_ends.pop(token, None)
            self._wake(token)
        if self._coarse_ends and not self._has_alarm:
            self._set_alarm(max(0.0, next(iter(self._coarse_ends.values())) - now))

    def on_ring(self, *_: object) -> None:
        """Called by the hub when the engine has woken it."""
        if self.is_parents:
            self.close()
            return
        for token in self._bell.drain():
            if (call := self._calls.pop(token, None)) is not None:
                call()
            else:
                self._wake(token)
            if self.is_parents:
                # The code just called has forked, and this is the child: the rest is the parent's.
                return
        self._bell.served()

    @abstractmethod
    def _sleep(self, token: int, timeout: float | None) -> None:
        """Yields to the hub as a sleeper, ``timeout`` seconds at most."""

    @abstractmethod
    def _call_later(self, time_s: float, call: Callable[[], None]) -> None:
        """Has the hub call ``call``; the hub does not go on just for this."""

    @abstractmethod
    def _wake(self, token: int) -> None:
        """Ends a sleep, unless it has ended already."""

    @abstractmethod
    def close(self) -> None:
        """Makes the hub stop watching the descriptor."""


class HubWaiter(GreenWaiter):
    """
    Sleeps in the hub that the caller's thread has, or as a thread when it has none.

    Any thread may use it.

    Args:
        hub: Gives the calling thread's hub, if it has one. Makes none: a hub outlives its thread.
        new_watcher: Opens a hub's :class:`HubWatcher`.
        pause: Yields to the hub for some seconds; without any until all others have had a turn.
        current: Gives the green thread that calls.
        new_event: Makes an event between two green threads of one hub.
    """

    def __init__(
        self,
        hub: Callable[[], Hub | None],
        new_watcher: Callable[[Hub], HubWatcher[Any]],
        pause: Callable[..., object],
        current: Callable[[], GreenThread],
        new_event: Callable[[], Event],
    ) -> None:
        self._hub = hub
        self._new_watcher = new_watcher
        self._pause = pause
        self._current = current
        self._new_event = new_event
        # One of the system's threads has one hub at a time, however many green threads it runs.
        self._own: Any = unpatched.original("_thread", "_local")()
        os.register_at_fork(after_in_child=self._forget_parents_ear)

    def take(
        self, connection: Connection, timeout: float | None, text_as_bytes: bool
    ) -> Message | None:
        """As :meth:`GreenWaiter.take`."""
        take = super().take if self._hub() is not None else THREAD.take
        return take(connection, timeout, text_as_bytes)

    def send(
        self,
        connection: Connection,
        message: Message,
        *,
        binary: bool | None,
        patience: float | None,
    ) -> bool:
        """As :meth:`GreenWaiter.send`."""
        if self._hub() is None:
            return THREAD.send(connection, message, binary=binary, patience=patience)
        sent = super().send(connection, message, binary=binary, patience=patience)
        if patience is not None:
            self.rest_after_sending()
        return sent

    def rest_after_sending(self) -> None:
        """As :meth:`GreenWaiter.rest_after_sending`."""
        if time.monotonic() > getattr(self._own, "turn_ends", 0.0) and self._hub() is not None:
            self._pause()
            self._own.turn_ends = time.monotonic() + _TURN_S

    def wait_for(self, connection: Connection, look: Look[T], timeout: float | None) -> T | None:
        """As :meth:`GreenWaiter.wait_for`."""
        wait_for = super().wait_for if self._hub() is not None else THREAD.wait_for
        return wait_for(connection, look, timeout)

    def wait(self, connection: Watched, watch: Watch, timeout: float | None) -> None:
        """As :meth:`GreenWaiter.wait`."""
        self._watcher(self._hub()).wait(connection, watch, timeout)

    def take_coarse(
        self, connection: Connection, time: float, text_as_bytes: bool
    ) -> Message | None:
        """As :meth:`GreenWaiter.take_coarse`."""
        hub = self._hub()
        if hub is None:
            return THREAD.take_coarse(connection, time, text_as_bytes)
        return self._watcher(hub).take_coarse(connection, time, text_as_bytes)

    def let_others_run(self, connection: Connection, time: float) -> None:
        """As :meth:`GreenWaiter.let_others_run`."""
        if self._hub() is None:
            THREAD.let_others_run(connection, time)
        elif time:
            self.wait(connection, connection.watch_inbox, time)
        else:
            self._pause()

    def sleep(self, seconds: float) -> None:
        """As :meth:`GreenWaiter.sleep`."""
        sleep = unpatched.sleep if self._hub() is None else self._pause
        sleep(seconds)

    def caller(self) -> object:
        """As :meth:`GreenWaiter.caller`."""
        return THREAD.caller() if self._hub() is None else self._current()

    def thread(self) -> object:
        """As :meth:`GreenWaiter.thread`."""
        return THREAD.thread() if self._hub() is None else self._current()

    def at_end(self, connection: Connection, call: Call) -> None:
        """As :meth:`GreenWaiter.at_end`."""
        hub = self._hub()
        at_end = THREAD.at_end if hub is None else self._watcher(hub).at_end
        at_end(connection, call)

    def call_later(self, delay: float, call: Call) -> Call:
        """As :meth:`GreenWaiter.call_later`."""
        hub = self._hub()
        call_later = THREAD.call_later if hub is None else self._watcher(hub).call_later
        return call_later(delay, call)

    def new_event(self) -> Event:
        """As :meth:`GreenWaiter.new_event`."""
        return self._new_event()

    def _watcher(self, hub: Hub) -> HubWatcher[Any]:
        watcher: HubWatcher[Any] | None = getattr(self._own, "watcher", None)
        if watcher is None or watcher.hub is not hub or watcher.is_parents:
            if watcher is not None:
                watcher.close()
            watcher = self._own.watcher = self._new_watcher(hub)
        return watcher

    def _forget_parents_ear(self) -> None:
        # It is closed later. Until the child's hub has set itself up anew, it shares its poller
        # with the parent's hub, which would not be woken any more.
        if (watcher := getattr(self._own, "watcher", None)) is not None:
            watcher.is_parents = True


class GreenRunner(ABC):
    """Runs each view on a green thread of its own, on the hub of the thread that starts it."""

    kind: str
    # A green thread shares the main thread, and with it what signals raise there.
    exits: tuple[type[BaseException], ...] = (KeyboardInterrupt, SystemExit)

    def __init__(
        self,
        new_watcher: Callable[[Hub], HubWatcher[Any]],
        pause: Callable[..., object],
        new_event: Callable[[], Event],
    ) -> None:
        self.waiter = HubWaiter(self._current_hub, new_watcher, pause, self._current, new_event)
        # Each connection has it: not as another method object.
        self.spawn = self._spawn_anywhere
        # The views that run, and their hubs.
        self._views: dict[GreenThread, Hub] = {}
        os.register_at_fork(after_in_child=self._views.clear)

    def run(self, name: str, job: Job) -> None:
        """As :meth:`dwebsocket.runners.contract.Runner.run`."""
        view = self._spawn(name, lambda: self._live(name, job))
        # It has not begun: this green thread has not yielded since.
        self._views[view] = self._current_hub()

    def _spawn_anywhere(self, name: str, job: Job) -> None:
        """As :attr:`dwebsocket.runners.contract.Runner.spawn`."""
        start = unpatched.start_thread if self._current_hub() is None else self.run
        start(name, job)

    def join(self, timeout: float) -> bool:
        """
        As :meth:`dwebsocket.runners.contract.Runner.join`.

        The hub of this thread goes on meanwhile, and so do those of other threads.
        """
        deadline = time.monotonic() + timeout
        hub = self._current_hub()
        while self._views:
            left = max(0.0, deadline - time.monotonic())
            # Listed anew each time: green threads that they start as they end run here, too.
            if here := [view for view, its_hub in list(self._views.items()) if its_hub is hub]:
                # Also without time: it gives the others a turn.
                self._join(here, left)
            if not left:
                break
            if not here:
                unpatched.sleep(_GLANCE_S)
        return not self._views

    def _live(self, name: str, job: Job) -> None:
        if unpatched.patched_by() == self.kind:
            threading.current_thread().name = name
        try:
            job()
            # This green thread ends here, so its connections are of no more use.
            database.release_idle()
        finally:
            self._views.pop(self._current(), None)

    @abstractmethod
    def _current_hub(self) -> Hub | None:
        """Gives this thread's hub, if it has one. Makes none: it would outlive its thread."""

    @abstractmethod
    def _current(self) -> GreenThread: ...

    @abstractmethod
    def _spawn(self, name: str, live: Job) -> GreenThread:
        """Starts a green thread, which runs as soon as this one yields."""

    @abstractmethod
    def _join(self, views: list[GreenThread], timeout: float) -> None:
        """Yields to the hub until these views have ended, ``timeout`` seconds at most."""
