"""
How green threads of gevent and eventlet sleep: they yield to their hub.

A hub (the event loop of a thread that runs green threads) watches one descriptor for all its
connections, that of its :class:`HubWatcher`: the engine puts ready connections on a list and wakes
the hub once. :mod:`dwebsocket.api.waiting.loop_hub` does the same for event loops.

After a fork the child has copies of its parent's green threads. To them their connections are
closed, and the child must not read the descriptor of the parent's hub: it would take the parent's
wake-ups.
"""

from __future__ import annotations

import functools
import itertools
from abc import ABC, abstractmethod
from collections import deque
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from dwebsocket import _core
from dwebsocket.api.waiting import long_calls
from dwebsocket.api.waiting.pings import Pings
from dwebsocket.api.waiting.waiter import THREAD, Waiter, no_room
from dwebsocket.compat import unpatched
from dwebsocket.compat.system import at_fork, monotonic
from dwebsocket.telemetry import clock

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

    from dwebsocket._core import Connection
    from dwebsocket.api.waiting.waiter import Call, Event, Look, Message, T, Watch, Watched

GreenHub = Any
GreenThread = Any
Sleeper = TypeVar("Sleeper")

# The longest timeout that is passed to a hub: hubs take no infinite ones.
_LONGEST_S = 86_400.0
# How long a view may send without letting others run.
_TURN_S = 0.01


class HubWatcher(ABC, Generic[Sleeper]):
    """The descriptor by which the engine wakes one hub. Belongs to the hub's thread."""

    def __init__(self, hub: GreenHub) -> None:
        self.hub = hub
        self.is_parents = False
        #: The engine's part of it.
        self.core = _core.Hub()
        self._sleepers: dict[int, Sleeper] = {}
        self._tokens = itertools.count()
        # Calls to make in the hub, by their tokens; all other tokens wake a green thread.
        self._calls: dict[int, Call] = {}
        # The same for tokens that come repeatedly.
        self._lasting: dict[int, Call] = {}
        #: The handlers of this hub: see :class:`dwebsocket.runners.handler_green.GreenHandlers`.
        self.handlers: Any = None

    def wait(self, connection: Watched, watch: Watch, timeout: float | None) -> None:
        """Yields to the hub until the engine signals the watch. May return early."""
        token = next(self._tokens)
        # Only the hub reads the descriptor, so no wake-up comes before the sleep has begun.
        watch(self.core, token)
        try:
            self._sleep(token, None if timeout is None else min(timeout, _LONGEST_S))
        finally:
            # Otherwise each wait that ends without a message would leave a watch behind.
            connection.unwatch(self.core, token)

    def take_coarse(
        self, connection: Connection, time_s: float, text_as_bytes: bool
    ) -> Message | None:
        """Takes a message, and yields to the hub while there is none."""
        token = next(self._tokens)
        if not connection.listen(self.core, token):
            return connection.pop(text_as_bytes)
        message = None
        try:
            self._sleep(token, time_s)
            message = connection.pop(text_as_bytes)
        finally:
            if message is None:
                connection.unwatch(self.core, token)
        return message

    def at_end(self, connection: Connection, call: Call) -> None:
        """Has the hub make ``call`` at the end. To be called on the hub's thread."""
        token = next(self._tokens)
        self._calls[token] = call
        connection.watch_end(self.core, token)

    def call_on(self, call: Call) -> int:
        """Returns a token: the hub makes ``call`` each time the engine announces it."""
        token = next(self._tokens)
        self._lasting[token] = call
        return token

    def forget(self, token: int) -> None:
        """Ends the calls for a token of :meth:`call_on`."""
        self._lasting.pop(token, None)

    @abstractmethod
    def call_later(self, delay: float, call: Call) -> Call:
        """Has the hub make ``call`` after ``delay``. To be called on the hub's thread."""

    def on_wake(self, *_: object) -> None:
        """Called by the hub when the engine has woken it."""
        if self.is_parents:
            self.close()
            return
        tokens = deque(self.core.drain())
        try:
            while tokens:
                token = tokens.popleft()
                call = self._calls.pop(token, None) or self._lasting.get(token)
                if call is not None:
                    call()
                else:
                    self._wake(token)
                if self.is_parents:
                    # The call has forked, and this is the child: the other tokens are the parent's.
                    tokens.clear()
                    return
        finally:
            # The error of one call, or Ctrl-C in it, takes no wake-up of others along.
            for token in tokens:
                self.core.announce(token)
        self.core.served()

    @abstractmethod
    def _sleep(self, token: int, timeout: float | None) -> None:
        """Yields to the hub as a sleeper, ``timeout`` seconds at most."""

    @abstractmethod
    def _wake(self, token: int) -> None:
        """Ends a sleep, unless it has ended already."""

    @abstractmethod
    def close(self) -> None:
        """Makes the hub stop watching the descriptor."""


class HubWaiter(Waiter):
    """
    Sleeps in the hub that the caller's thread has, or as a thread when it has none.

    Any thread may use it.

    Args:
        hub: Returns the calling thread's hub, if it has one. Makes none: a hub outlives its thread.
        new_watcher: Opens a hub's :class:`HubWatcher`.
        pause: Yields to the hub for some seconds; without an argument until all other green threads
            have had a turn.
        current: Returns the green thread that calls.
        new_event: Makes an event between two green threads of one hub.
    """

    def __init__(
        self,
        hub: Callable[[], GreenHub | None],
        new_watcher: Callable[[GreenHub], HubWatcher[Any]],
        pause: Callable[..., object],
        current: Callable[[], GreenThread],
        new_event: Callable[[], Event],
    ) -> None:
        self._hub = hub
        self._new_watcher = new_watcher
        self._pause = pause
        self._current = current
        self._new_event = new_event
        # A local of the system's threads: each of them has one hub at a time.
        self._own: Any = unpatched.original("_thread", "_local")()
        at_fork(self._forget_parents_watcher)

    def take(
        self, connection: Connection, timeout: float | None, text_as_bytes: bool
    ) -> Message | None:
        """Takes a message, and yields to the hub while there is none."""
        if self._hub() is None:
            return THREAD.take(connection, timeout, text_as_bytes)
        deadline = None if timeout is None else clock.now() + timeout
        while True:
            # Read the end first: it comes after all messages, so no message is missed.
            ended = connection.waiting()[1]
            message = connection.take(0, text_as_bytes)
            left = None if deadline is None else deadline - clock.now()
            if message is not None or ended:
                return message
            if left is not None and left <= 0:
                return None
            self.wait(connection, connection.watch_inbox, left)

    def send(
        self,
        connection: Connection,
        message: Message,
        *,
        binary: bool | None,
        timeout: float | None,
    ) -> bool:
        """Sends, and yields to the hub without room; a large message is sent on another thread."""
        if self._hub() is None:
            return THREAD.send(connection, message, binary=binary, timeout=timeout)
        if timeout is None:
            return connection.send(message, binary=binary)
        sent = self._send_within(connection, message, binary, timeout)
        self.yield_after_sending()
        return sent

    def _send_within(
        self, connection: Connection, message: Message, binary: bool | None, timeout: float
    ) -> bool:
        deadline = clock.now() + timeout
        try_send = functools.partial(connection.try_send, message, binary=binary)
        is_slow = connection.is_slow_to_send(message)
        while (sent := self._call_elsewhere(try_send) if is_slow else try_send()) is None:
            left = deadline - clock.now()
            if left <= 0:
                raise no_room(timeout)
            self.wait(connection, connection.watch_outbox, left)
        return sent

    def _call_elsewhere(self, function: Callable[[], T]) -> T:
        """Calls ``function`` on a thread of the system, while the hub goes on."""
        future = long_calls.submit(function)
        try:
            self.wait_until(future, None)
        except BaseException:
            # Of a library's timeout, for instance. The next message must not overtake the call.
            if not future.cancel():
                self.wait_until(future, None)
            raise
        return future.result()

    def yield_after_sending(self) -> None:
        """
        Yields to the hub after a while of sending.

        Without this, a view that only sends blocks all other views while its client keeps up.
        """
        if monotonic() > getattr(self._own, "turn_ends", 0.0) and self._hub() is not None:
            self._pause()
            self._own.turn_ends = monotonic() + _TURN_S

    def wait_for(self, connection: Connection, look: Look[T], timeout: float | None) -> T | None:
        """Yields to the hub until ``look`` finds something."""
        if self._hub() is None:
            return THREAD.wait_for(connection, look, timeout)
        deadline = None if timeout is None else clock.now() + timeout
        while True:
            # Read the end before the look: an answer that came before the end counts.
            ended = connection.end() is not None
            found = look(0)
            left = None if deadline is None else deadline - clock.now()
            if found is not None or ended or (left is not None and left <= 0):
                return found
            pings = Pings(connection, look)
            self.wait(pings, pings.watch, left)

    def wait(self, connection: Watched, watch: Watch, timeout: float | None) -> None:
        """
        Yields to the hub until the engine signals ``watch``, ``timeout`` seconds at most.

        Takes the watch back (``connection.unwatch``) when it was not signalled.
        """
        self._watcher(self._hub()).wait(connection, watch, timeout)

    def take_coarse(
        self, connection: Connection, time: float, text_as_bytes: bool
    ) -> Message | None:
        """Takes a message, and yields to the hub for about ``time`` while there is none."""
        hub = self._hub()
        if hub is None:
            return THREAD.take_coarse(connection, time, text_as_bytes)
        return self._watcher(hub).take_coarse(connection, time, text_as_bytes)

    def let_others_run(self, connection: Connection, time: float) -> None:
        """Lets the hub's other green threads run."""
        if self._hub() is None:
            THREAD.let_others_run(connection, time)
        elif time:
            self.wait(connection, connection.watch_inbox, time)
        else:
            self._pause()

    def await_room(self, connection: Connection, timeout: float | None) -> None:
        """Yields to the hub until there is room."""
        if self._hub() is None:
            THREAD.await_room(connection, timeout)
        else:
            self.wait(connection, connection.watch_outbox, timeout)

    def sleep(self, seconds: float) -> None:
        """Yields to the hub for the whole time."""
        sleep = unpatched.sleep if self._hub() is None else self._pause
        sleep(seconds)

    def wait_until(self, future: Future[Any], timeout: float | None) -> bool:
        """Yields to the hub until ``future`` is done."""
        if self._hub() is None:
            return THREAD.wait_until(future, timeout)
        deadline = None if timeout is None else monotonic() + timeout
        # Hubs ignore tokens that come late.
        watched = SimpleNamespace(unwatch=lambda hub, token: None)

        def watch(hub: _core.Hub, token: int) -> None:
            future.add_done_callback(lambda _: hub.announce(token))

        while not future.done():
            left = None if deadline is None else deadline - monotonic()
            if left is not None and left <= 0:
                return False
            self.wait(watched, watch, left)
        return True

    def caller(self) -> object:
        """Returns the green thread, where this thread has a hub."""
        return THREAD.caller() if self._hub() is None else self._current()

    def thread(self) -> object:
        """Returns the green thread, where this thread has a hub."""
        return THREAD.thread() if self._hub() is None else self._current()

    def at_end(self, connection: Connection, call: Call) -> None:
        """Has the hub make the call at the end, where this thread has one."""
        hub = self._hub()
        at_end = THREAD.at_end if hub is None else self._watcher(hub).at_end
        at_end(connection, call)

    def call_later(self, delay: float, call: Call) -> Call:
        """Has the hub make the call later, where this thread has one."""
        hub = self._hub()
        call_later = THREAD.call_later if hub is None else self._watcher(hub).call_later
        return call_later(delay, call)

    def new_event(self) -> Event:
        """Makes an event between two green threads of one hub."""
        return self._new_event()

    def watcher(self) -> HubWatcher[Any]:
        """Returns the watcher of this thread's hub. Not for threads without one."""
        return self._watcher(self._hub())

    def _watcher(self, hub: GreenHub) -> HubWatcher[Any]:
        watcher: HubWatcher[Any] | None = getattr(self._own, "watcher", None)
        if watcher is None or watcher.hub is not hub or watcher.is_parents:
            if watcher is not None:
                watcher.close()
            watcher = self._own.watcher = self._new_watcher(hub)
        return watcher

    def _forget_parents_watcher(self) -> None:
        # Do not close it yet: until the child's hub has set itself up anew, both hubs share one
        # poller, and closing here would stop the parent's wake-ups.
        if (watcher := getattr(self._own, "watcher", None)) is not None:
            watcher.is_parents = True
