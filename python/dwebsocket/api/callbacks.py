"""
Calls at the end of a connection or after a time, without a thread for each.

One thread of the system makes them for the whole process. It starts with the first call and ends
when none is left. On green threads the hub does the same
(:class:`dwebsocket.api.waiting.green.HubWatcher`).
"""

from __future__ import annotations

import functools
import heapq
import itertools
import logging
from typing import TYPE_CHECKING

from dwebsocket import _core
from dwebsocket.compat import unpatched
from dwebsocket.compat.system import at_fork
from dwebsocket.telemetry import clock

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable

    from dwebsocket._core import Connection

    Call = Callable[[], object]
    Cancel = Callable[[], None]

_log = logging.getLogger("dwebsocket")

# A token that wakes the thread only to check its timers.
_LOOK = 0
# The number of timers up to which cancelled ones may stay in the heap.
_FEW = 64
# No selector takes a longer timeout.
_LONGEST_S = 86_400.0
# Seconds that the thread stays without a call to make, as threads of views do.
_LINGER_S = 2.0


class Timer:
    """A call that is due at one moment of :mod:`dwebsocket.telemetry.clock`."""

    __slots__ = ("call", "due")

    def __init__(self, due: float, call: Call) -> None:
        self.due = due
        self.call: Call | None = call

    def __lt__(self, other: Timer) -> bool:
        return self.due < other.due


class CallbackThread:
    """The thread that makes the calls. They must not sleep. Any thread may ask for one."""

    def __init__(self) -> None:
        self.forget_parents()

    def forget_parents(self) -> None:
        """Begins without a thread and without calls, also in a forked child."""
        self._lock = unpatched.lock()
        self._hub: _core.Hub | None = None
        # Released when the thread of the hub has ended.
        self._gone = unpatched.lock()
        self._may_linger = True
        self._tokens = itertools.count(_LOOK + 1)
        self._at_end: dict[int, Call] = {}
        self._timers: list[Timer] = []
        # From so many timers on, cancelled ones are dropped before they are due.
        self._sweep_at = _FEW

    def at_end(self, connection: Connection, call: Call) -> None:
        """
        Calls ``call`` once, as soon as ``connection`` has ended, which may be now.

        Raises:
            RuntimeError: The system gives no thread.
        """
        with self._lock:
            hub = self._start()
            token = next(self._tokens)
            self._at_end[token] = call
        connection.watch_end(hub, token)

    def call_later(self, delay: float, call: Call) -> Cancel:
        """
        Calls ``call`` once, after ``delay`` seconds. Returns a function to cancel it.

        Raises:
            RuntimeError: The system gives no thread.
        """
        timer = Timer(clock.now() + delay, call)
        with self._lock:
            hub = self._start()
            if len(self._timers) >= self._sweep_at:
                self._sweep()
            heapq.heappush(self._timers, timer)
            is_first = self._timers[0] is timer
        if is_first:
            hub.announce(_LOOK)

        def cancel() -> None:
            # Drops the call at once, with all objects that it refers to.
            timer.call = None
            hub.announce(_LOOK)

        return cancel

    def look_again(self) -> None:
        """Compares the timers with the clock again, because a test has stepped it."""
        if (hub := self._hub) is not None:
            hub.announce(_LOOK)

    def dismiss(self, timeout: float) -> bool:
        """Ends the thread at once, unless it has calls to make. Whether it has ended."""
        with self._lock:
            hub, gone, self._may_linger = self._hub, self._gone, False
        if hub is None:
            return True
        hub.announce(_LOOK)
        has_gone = gone.acquire(timeout=max(0.0, timeout))
        if has_gone:
            gone.release()
        return has_gone

    def _start(self) -> _core.Hub:
        """Returns the hub of the running thread. To be called under the lock."""
        if self._hub is None:
            hub, gone = _core.Hub(), unpatched.lock()
            gone.acquire()
            work = functools.partial(self._work, hub, gone)
            unpatched.start_thread("dwebsocket-callbacks", work)
            self._hub, self._gone, self._may_linger = hub, gone, True
        return self._hub

    def _retire(self) -> bool:
        """Ends the thread, unless there is something left to call."""
        with self._lock:
            self._sweep()
            is_idle = not self._timers and not self._at_end
            if is_idle:
                self._hub = None
        return is_idle

    def _sweep(self) -> None:
        self._timers = [timer for timer in self._timers if timer.call is not None]
        heapq.heapify(self._timers)
        self._sweep_at = max(_FEW, 2 * len(self._timers))

    def _work(self, hub: _core.Hub, gone: threading.Lock) -> None:
        # Code that waits for a call cannot know that the thread has failed.
        unpatched.lasting("dwebsocket-callbacks", lambda: self._serve(hub))()
        gone.release()

    def _serve(self, hub: _core.Hub) -> None:
        """Makes calls until there are none to make any more."""
        with unpatched.selector() as selector:
            selector.register(hub.fileno(), 1)
            while True:
                time_left = self._time_left()
                is_idle = not selector.select(time_left) and time_left == _LINGER_S
                self._make_calls(hub)
                if (is_idle or not self._may_linger) and self._retire():
                    return

    def _make_calls(self, hub: _core.Hub) -> None:
        ends = [self._at_end.pop(token, None) for token in hub.drain()]
        for call in ends + self._due():
            if call is not None:
                unpatched.run_code(functools.partial(_make, call))

    def _time_left(self) -> float:
        with self._lock:
            while self._timers and self._timers[0].call is None:
                heapq.heappop(self._timers)
            if self._timers:
                return min(max(0.0, self._timers[0].due - clock.now()), _LONGEST_S)
            return _LONGEST_S if self._at_end else _LINGER_S

    def _due(self) -> list[Call | None]:
        found = []
        with self._lock:
            while self._timers and self._timers[0].due <= clock.now():
                found.append(heapq.heappop(self._timers).call)
        return found


def _make(call: Call) -> None:
    try:
        call()
    except BaseException:
        # This thread also makes the calls of all other connections, so it must go on.
        _log.exception("A callback of a WebSocket could not be started.")


_thread = CallbackThread()


#: The calls of the process's thread.
at_end, call_later = _thread.at_end, _thread.call_later
look_again, dismiss = _thread.look_again, _thread.dismiss

at_fork(_thread.forget_parents)
