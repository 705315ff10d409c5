"""
Checks repeatedly that users are signed in, and closes the WebSockets of those who are not.

The first check is made in the handshake, when the WebSocket is in the register
(:mod:`dwebsocket.registry`): a sign-out either finds it there or is seen by this check. Later
checks find changes for which this process gets no signal: a sign-out in another process, an expired
session, an update by SQL. Each user is checked once in ``WEBSOCKET_AUTH_RECHECK``, and the checks
are spread over that time. They run like views, on threads or on the hub's green threads.
"""

from __future__ import annotations

import functools
import logging
from typing import TYPE_CHECKING, Any

from django.core.exceptions import ImproperlyConfigured

from dwebsocket import authentication, clock, conf, database, registry, sign_out, unpatched
from dwebsocket.announcements import Listener
from dwebsocket.compat.asyncio import running_loop
from dwebsocket.compat.system import at_fork
from dwebsocket.registry import BUCKETS, SIGNED_OUT
from dwebsocket.waiting.waiter import THREAD

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from django.db.backends.base.base import BaseDatabaseWrapper

    from dwebsocket.api.close_callbacks import Spawn
    from dwebsocket.registry import Visitor
    from dwebsocket.waiting.waiter import Waiter

    Databases = dict[str, BaseDatabaseWrapper]

_log = logging.getLogger("dwebsocket")

_TRY_AGAIN_LATER = 1013
# The most rows that one query looks up: databases limit a query's parameters.
_BATCH = 200


def admit(visitor: Visitor, waiter: Waiter, spawn: Spawn, databases: Databases) -> None:
    """
    Checks a user whose WebSocket is about to open, and starts the timer of later checks.

    To be called when the WebSocket opens, after the request's transactions. In an event loop or a
    transaction the check starts right away on its own thread, and this does not wait for it.

    Args:
        visitor: The WebSocket's entry in the register.
        waiter: How the WebSocket's view sleeps; also gives the timer.
        spawn: Starts a function on the same kind of thread.
        databases: The result of :func:`dwebsocket.database.shareable`.
    """
    sign_out.listen()
    if (store := visitor.who.store) is not None:
        sign_out.listen_to(store)
    if running_loop() is not None or database.in_transaction():
        _schedule.look_soon(visitor, spawn, databases)
    else:
        try:
            _close(authentication.signed_out([visitor]))
        except Exception:
            _log.exception("Whether a user is signed in cannot be looked up: a WebSocket is closed")
            visitor.refuse(_TRY_AGAIN_LATER, "try again later")
    _schedule.start(waiter, spawn, databases)
    _schedule.listen(waiter, spawn, databases)


def _close(found: dict[Visitor, str]) -> None:
    for visitor, reason in found.items():
        visitor.close(SIGNED_OUT, reason)


def _period() -> float:
    try:
        return float(conf.get("AUTH_RECHECK"))
    except ImproperlyConfigured:
        # A system check reports it. Until it is corrected, the default applies.
        return float(conf.SETTINGS["AUTH_RECHECK"].default)


class Schedule:
    """The timer and the checks of one process. Any thread may use it."""

    def __init__(self) -> None:
        self._lock = unpatched.lock()
        self._cancel: Callable[[], object] | None = None
        # Whether any thread may cancel the timer: a hub's timers belong to its own thread.
        self._may_cancel = False
        # A hub's timer is lost when the hub ends, so an overdue one is replaced. If the old one
        # fires all the same, its number is not `_last_timer`.
        self._due = 0.0
        self._last_timer = 0
        # The bucket that is due next.
        self._bucket = 0
        # Buckets that are due. One whose check failed is checked again with the next one.
        self._todo: set[int] = set()
        self._is_working = False
        self._waiter: Waiter
        self._spawn: Spawn
        self._databases: Databases = {}
        self._listener = Listener(self._on_announced)

    def listen(self, waiter: Waiter, spawn: Spawn, databases: Databases) -> None:
        """Listens to the sign-outs that other processes announce, until no user is left."""
        self._spawn, self._databases = spawn, databases
        self._listener.start(waiter)

    def _on_announced(self, change: dict[str, Any]) -> None:
        if visitors := sign_out.on_announced(change):
            databases = self._databases

            def look() -> None:
                _look(visitors, databases)

            try:
                self._spawn("dwebsocket-recheck", look)
            except RuntimeError as error:
                _log.error("No thread to look whether users are signed in: %s", error)

    def start(self, waiter: Waiter, spawn: Spawn, databases: Databases) -> None:
        """Starts the timer unless it runs. It stops when no user is left."""
        if not (period := _period()):
            return
        with self._lock:
            interval = period / BUCKETS
            if self._cancel is not None and clock.now() < self._due + max(period, 1.0):
                return
            self._waiter, self._spawn, self._databases = waiter, spawn, databases
            self._may_cancel = waiter is THREAD
            self._set_timer(clock.now() + interval)
        # If the last user left meanwhile, its `stop_if_idle` found the lock taken: repeat it here.
        self.stop_if_idle()

    def stop_if_idle(self) -> None:
        """Cancels the timer when no user is left. Never waits."""
        if not registry.has_users():
            self._listener.stop()
        if not self._may_cancel or registry.has_users() or not self._lock.acquire(blocking=False):
            # A timer that finds no user sets no further one either.
            return
        try:
            cancel, self._cancel = self._cancel, None
            if registry.has_users():
                # A new user came meanwhile, and its `start` relied on this timer: keep it.
                cancel, self._cancel = None, cancel
        finally:
            self._lock.release()
        if cancel is not None:
            cancel()

    def _set_timer(self, due: float) -> None:
        """To be called under the lock."""
        self._due = due
        self._last_timer += 1
        call = functools.partial(self._on_time, self._last_timer)
        self._cancel = self._waiter.call_later(max(0.0, due - clock.now()), call)

    def _on_time(self, timer: int) -> None:
        """Runs on the timer's thread: must not block."""
        period = _period()
        with self._lock:
            if timer != self._last_timer:
                return
            self._cancel = None
            # Checked under the lock: the `start` of a new user comes later, and sets a timer.
            if not period or not registry.has_users():
                return
            interval, now = period / BUCKETS, clock.now()
            # More than one bucket is due when the clock was stepped, or this thread ran late.
            passed = min(BUCKETS, 1 + int(max(0.0, now - self._due) / interval))
            buckets = [(self._bucket + number) % BUCKETS for number in range(passed)]
            self._todo.update(bucket for bucket in buckets if registry.present("bucket", bucket))
            self._bucket = (self._bucket + passed) % BUCKETS
            self._set_timer(max(self._due + passed * interval, now))
            starts = bool(self._todo) and not self._is_working
            self._is_working = self._is_working or starts
        self.stop_if_idle()
        if starts:
            self._start_work()

    def _start_work(self) -> None:
        """Starts :meth:`_work`, or leaves it to the next timer."""
        try:
            self._spawn("dwebsocket-recheck", self._work)
        except RuntimeError as error:
            with self._lock:
                self._is_working = False
            _log.error("No thread to look whether users are signed in: %s", error)

    def _work(self) -> None:
        """Checks all users of the buckets that are due."""
        failed: set[int] = set()
        try:
            while (bucket := self._next()) is not None:
                if not _look(registry.present("bucket", bucket), self._databases):
                    failed.add(bucket)
        finally:
            with self._lock:
                self._todo |= failed
                self._is_working = False
            self.stop_if_idle()

    def _next(self) -> int | None:
        with self._lock:
            return self._todo.pop() if self._todo else None

    def look_soon(self, visitor: Visitor, spawn: Spawn, databases: Databases) -> None:
        """Checks one user now, on a thread of its own."""

        def look() -> None:
            if not _look([visitor], databases):
                visitor.refuse(_TRY_AGAIN_LATER, "try again later")

        try:
            spawn("dwebsocket-recheck", look)
        except RuntimeError as error:
            _log.error("No thread to look whether a user is signed in: %s", error)
            visitor.refuse(_TRY_AGAIN_LATER, "try again later")


def _look(visitors: Iterable[Visitor], databases: Databases) -> bool:
    """Closes the WebSockets of signed-out users; false when the lookup failed."""
    visitors = list(visitors)
    database.borrow(databases)
    try:
        for first in range(0, len(visitors), _BATCH):
            _close(authentication.signed_out(visitors[first : first + _BATCH]))
    except Exception:
        _log.exception("Whether users are signed in cannot be looked up; it is tried again")
        return False
    finally:
        database.forget(databases)
        # This thread will not need its database connections soon.
        database.release_idle()
    return True


_schedule = Schedule()


def _stop_if_idle() -> None:
    _schedule.stop_if_idle()


registry.tell_of_leaving(_stop_if_idle)


def _forget_parents_schedule() -> None:
    global _schedule
    _schedule = Schedule()


at_fork(_forget_parents_schedule)
