"""
Checks that users are signed in, and closes the WebSockets of those who are not.

The first check is made in the handshake, when the WebSocket is in the register
(:mod:`dwebsocket.users.registry`): a sign-out either finds it there or is seen by this check. It
needs no query where the request has read the same rows, and nobody has signed out since that began.
Later checks are made when this process or another one has seen a sign-out (:func:`ask`), and in
time: those find an expired session, or an update by SQL. Each user is checked once in
``WEBSOCKET_AUTH_RECHECK``, and these checks are spread over that time. They run like views, on
threads or on the hub's green threads.
"""

from __future__ import annotations

import functools
import logging
import time
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

from django.core.signals import request_started

from dwebsocket import conf
from dwebsocket.api.waiting.waiter import THREAD
from dwebsocket.compat import unpatched
from dwebsocket.compat.asyncio import running_loop
from dwebsocket.compat.system import renew_at_fork
from dwebsocket.conf.group_settings import DEFAULT
from dwebsocket.groups import backends, reports
from dwebsocket.groups.backends import process
from dwebsocket.request import database, worlds
from dwebsocket.telemetry import clock
from dwebsocket.users import announcements, authentication, registry
from dwebsocket.users.announcements import KINDS, Listener
from dwebsocket.users.registry import BUCKETS, SIGNED_OUT, present

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from django.db.backends.base.base import BaseDatabaseWrapper

    from dwebsocket.api.close_callbacks import Spawn
    from dwebsocket.api.waiting.waiter import Waiter
    from dwebsocket.users.announcements import Announcement, Hint
    from dwebsocket.users.registry import Visitor

    Databases = dict[str, BaseDatabaseWrapper]

_log = logging.getLogger("dwebsocket")

_TRY_AGAIN_LATER = 1013
# The most rows that one query looks up: databases limit a query's parameters.
_BATCH = 200
# Without a recheck: seconds until a lookup that failed is tried again.
_RETRY_S = 20.0
# What :meth:`Schedule.latest` was when the present request began, or an earlier one.
_seen: ContextVar[object] = ContextVar("sign_outs_seen", default=None)


def _on_request(**_: object) -> None:
    _seen.set(_schedule.latest())


request_started.connect(_on_request, dispatch_uid="dwebsocket.users.recheck")


def note_request(visitor: Visitor) -> None:
    """Notes which sign-outs a handshake has seen. To be called in the context of its request."""
    visitor.seen = _seen.get()


def needs_check(visitor: Visitor) -> bool:
    """Whether a user whose WebSocket is about to open has to be looked up once more."""
    if visitor.seen is None or visitor.seen is not _schedule.latest():
        return True
    # The handshake may have had another world around it than its look would have.
    return visitor.world is not None or not authentication.has_just_looked(visitor.who)


def admit(visitor: Visitor, waiter: Waiter, spawn: Spawn, databases: Databases) -> None:
    """
    Checks a user whose WebSocket is about to open, and starts the timer of later checks.

    To be called when the WebSocket opens, after the request's transactions. In an event loop or a
    transaction the check starts right away on its own thread, and this does not wait for it.

    Args:
        visitor: The WebSocket's entry in the register.
        waiter: How the WebSocket's view sleeps; also gives the timer.
        spawn: Starts a function on the same kind of thread.
        databases: The result of :func:`dwebsocket.request.database.shareable`.
    """
    _schedule.use(spawn, databases)
    if needs_check(visitor):
        _schedule.check([visitor])
    _schedule.start(waiter)
    _schedule.listen(waiter)


def ask(hint: Hint) -> None:
    """
    Has all processes ask whether a user or session that has changed is still signed in.

    To be called when the change is committed. This process asks at once, in this thread. In an
    event loop, or in a transaction of another database, it asks on its own thread. Never raises.
    """
    announcements.announce(hint)
    _schedule.note()
    _schedule.check(_visitors([hint]))


def hear_others() -> None:
    """Listens from now on, also without users, to others that ask what they have missed."""
    try:
        if type(backends.backend(DEFAULT)) is process.Backend:
            # There are no others.
            return
        _schedule.is_asked = True
        _schedule.listen(THREAD)
    except Exception:
        # The next call of the project or the next WebSocket tries it again.
        _log.exception("This process cannot answer others that ask for missed close_user() calls")


def _visitors(hints: list[Hint]) -> list[Visitor]:
    """Returns those whom hints are about, and closes those about whom nobody can be asked."""
    found: dict[Visitor, None] = {}
    for kind, name in hints:
        for visitor in present(KINDS[kind], name):
            store = visitor.who.store
            if kind == "sessions" and store is not None and not authentication.is_kept(store):
                # The client alone has such a session, and the hint alone knows of its end.
                visitor.close(SIGNED_OUT, "signed out")
            else:
                found[visitor] = None
    return list(found)


def _period() -> float:
    return float(conf.get_or("AUTH_RECHECK", otherwise=conf.SETTINGS["AUTH_RECHECK"].default))


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
        # None until the first WebSocket opens.
        self._spawn: Spawn | None = None
        self._databases: Databases = {}
        self._listener = Listener(self._on_announced)
        #: Whether it has to listen without users, too.
        self.is_asked = False
        self._latest = object()
        # Visitors to look at now, and whether a thread does so.
        self._wanted: dict[Visitor, None] = {}
        self._is_checking = False

    def use(self, spawn: Spawn, databases: Databases) -> None:
        """Uses these threads and databases from now on."""
        self._spawn, self._databases = spawn, databases

    def listen(self, waiter: Waiter) -> None:
        """Listens to the sign-outs that other processes announce, until no user is left."""
        if not self._listener.hears:
            # Some may have passed unheard.
            self.note()
        self._listener.start(waiter)

    def latest(self) -> object | None:
        """Returns what stands for the latest sign-out; None where not all of them are heard."""
        return self._latest if self._listener.hears else None

    def note(self) -> None:
        """Notes a sign-out: before its users are looked for in the register."""
        self._latest = object()

    def _on_announced(self, said: Announcement) -> None:
        self.note()
        for user, code, reason, age in said.closes:
            registry.close_here(user, code, reason, before=time.time() - age)
        if said.asks:
            announcements.repeat()
        self._check_on_thread(_visitors(said.hints))

    def recheck_all(self) -> None:
        """Has all users looked up, one bucket after another: sign-outs may have been missed."""
        self.note()
        if self._spawn is None:
            # They are checked when they open.
            return
        if registry.has_users():
            announcements.ask()
        self._recheck(range(BUCKETS))

    def _recheck(self, buckets: Iterable[int]) -> None:
        """Has the users of buckets looked up, and those whose lookup has failed."""
        with self._lock:
            starts = self._want(buckets)
        if starts:
            self._start_work()

    def check(self, visitors: list[Visitor]) -> None:
        """Checks users now: in this thread if it may ask the database, beside it otherwise."""
        if running_loop() is None and database.sees_commits():
            _check_or_refuse(visitors)
        else:
            self._check_on_thread(visitors)

    def _check_on_thread(self, visitors: list[Visitor]) -> None:
        """Checks users now, on one thread of its own, those of several calls together."""
        if (spawn := self._spawn) is None:
            # They are checked when they open.
            return
        with self._lock:
            self._wanted.update(dict.fromkeys(visitors))
            if self._is_checking or not self._wanted:
                return
            self._is_checking = True
        try:
            spawn("dwebsocket-recheck", self._check_wanted)
        except RuntimeError as error:
            _log.error("No thread to look whether users are signed in: %s", error)
            while visitors := self._take_wanted():
                _refuse(visitors)

    def _check_wanted(self) -> None:
        is_over = False
        try:
            with _borrowed(self._databases):
                while visitors := self._take_wanted():
                    _check_or_refuse(visitors)
                # From here on the visitors are those of another thread.
                is_over = True
        finally:
            # After a failure the next call starts another thread, and nobody is forgotten.
            while not is_over and (visitors := self._take_wanted()):
                _refuse(visitors)

    def _take_wanted(self) -> list[Visitor]:
        with self._lock:
            visitors, self._wanted = list(self._wanted), {}
            self._is_checking = bool(visitors)
        return visitors

    def start(self, waiter: Waiter) -> None:
        """Starts the timer unless it runs. It stops when no user is left."""
        if not (period := _period()):
            return
        with self._lock:
            interval = period / BUCKETS
            if self._cancel is not None and clock.now() < self._due + max(period, 1.0):
                return
            self._waiter = waiter
            self._may_cancel = waiter is THREAD
            self._set_timer(clock.now() + interval)
        # If the last user left meanwhile, its `stop_if_idle` found the lock taken: repeat it here.
        self.stop_if_idle()

    def stop_if_idle(self) -> None:
        """Cancels the timer when no user is left. Never waits."""
        if not self.is_asked and not registry.has_users():
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
            starts = self._want((self._bucket + number) % BUCKETS for number in range(passed))
            self._bucket = (self._bucket + passed) % BUCKETS
            self._set_timer(max(self._due + passed * interval, now))
        self.stop_if_idle()
        if starts:
            self._start_work()

    def _want(self, buckets: Iterable[int]) -> bool:
        """Notes buckets as due, under the lock. Whether :meth:`_start_work` is to be called."""
        self._todo.update(bucket for bucket in buckets if present("bucket", bucket))
        starts = bool(self._todo) and not self._is_working
        self._is_working = self._is_working or starts
        return starts

    def _start_work(self) -> None:
        """Starts :meth:`_work`, or leaves it to the next timer."""
        assert self._spawn is not None
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
                if not _check(present("bucket", bucket), self._databases):
                    failed.add(bucket)
        finally:
            with self._lock:
                self._todo |= failed
                self._is_working = False
            self.stop_if_idle()
        if failed and not _period():
            # No timer looks them up again.
            THREAD.call_later(_RETRY_S, functools.partial(self._recheck, ()))

    def _next(self) -> int | None:
        with self._lock:
            return self._todo.pop() if self._todo else None


@contextmanager
def _borrowed(databases: Databases) -> Iterator[None]:
    """Lets this thread use these connections for a block."""
    database.borrow(databases)
    try:
        yield
    finally:
        database.forget(databases)
        # This thread will not need its database connections soon.
        database.release_idle()


def _check_or_refuse(visitors: Iterable[Visitor]) -> None:
    """Closes the WebSockets of signed-out users; of all, to come back, when the lookup fails."""
    failure = "Whether users are signed in cannot be looked up: they are closed"
    for batch in _close_signed_out(visitors, failure):
        _refuse(batch)


def _check(visitors: Iterable[Visitor], databases: Databases) -> bool:
    """Closes the WebSockets of signed-out users; false when the lookup failed."""
    failure = "Whether users are signed in cannot be looked up; it is tried again"
    with _borrowed(databases):
        return not list(_close_signed_out(visitors, failure))


def _close_signed_out(visitors: Iterable[Visitor], failure: str) -> Iterator[list[Visitor]]:
    """
    Closes those whose users are signed out, asked for in parts, each in its world.

    Yields the parts that could not be looked up, after ``failure`` was logged.
    """
    for world, those in worlds.together(list(visitors)):
        for first in range(0, len(those), _BATCH):
            batch = those[first : first + _BATCH]
            # A world whose users cannot be looked up leaves the others their turn.
            try:
                with worlds.entered(world):
                    signed_out = authentication.signed_out(batch)
                for visitor, reason in signed_out.items():
                    visitor.close(SIGNED_OUT, reason)
            except Exception:
                _log.exception(failure)
                yield batch


def _refuse(visitors: Iterable[Visitor]) -> None:
    for visitor in visitors:
        visitor.refuse(_TRY_AGAIN_LATER, "try again later")


_schedule = Schedule()


def _on_interruption(using: str, groups: list[str], **_: object) -> None:
    if using == DEFAULT and (not groups or announcements.GROUP in groups):
        announcements.catch_up()
        _schedule.recheck_all()


reports.interrupted.connect(_on_interruption, dispatch_uid="dwebsocket.users.recheck")
# Looked up each time: a forked child has another one.
registry.tell_of_leaving(lambda: _schedule.stop_if_idle())
renew_at_fork(globals(), _schedule=Schedule)
