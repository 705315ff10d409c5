"""Database connections of a view that lives for hours."""

from __future__ import annotations

import threading
from contextlib import contextmanager, nullcontext, suppress
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from django.db import DatabaseError, connections

from dwebsocket.compat import unpatched
from dwebsocket.compat.django import ageless
from dwebsocket.compat.django import has_connections as _has_any
from dwebsocket.compat.django_auth import is_in_test_case, is_in_transaction
from dwebsocket.compat.django_commits import is_in_transaction as is_in_any_transaction
from dwebsocket.telemetry import clock

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from django.db.backends.base.base import BaseDatabaseWrapper

#: A connection that a view has not used for so long is given back.
IDLE_AFTER_S = 3.0


def close_old_connections() -> None:
    """
    Calls ``django.db.close_old_connections``; does nothing where this thread has none.

    To be called between two calls on a thread that gives back what is idle for some seconds. So
    ``CONN_MAX_AGE = 0`` makes no connection too old, except where it goes back to a pool.
    """
    if not _has_any():
        return
    for connection in connections.all(initialized_only=True):
        own = connection.settings_dict
        may_stay = own["CONN_MAX_AGE"] == 0 and not own["OPTIONS"].get("pool")
        with ageless(connection) if may_stay else nullcontext():
            connection.close_if_unusable_or_obsolete()


def close_after_call() -> None:
    """
    Closes old connections as :func:`close_old_connections`, and also those in a transaction.

    The next call on this thread is for another connection.
    """
    if not _has_any():
        return
    if in_transaction():
        leave()
    close_old_connections()


def release_idle() -> None:
    """
    Closes this thread's database connections that are in no transaction and not being read.

    Django opens them again by itself. Ten thousand views that wait must not hold ten thousand
    connections of the database server.
    """
    for connection in _initialized():
        if not _is_needed(connection):
            # In a forked child those of the parent's green threads belong to none.
            try:
                connection.validate_thread_sharing()
            except DatabaseError:
                continue
            connection.close()


_thread = threading.local()


def watch_thread() -> None:
    """Notes that this thread calls :func:`give_back_idle` again and again."""
    _thread.is_watched = True


def is_watched() -> bool:
    """Whether :func:`watch_thread` was called on this thread."""
    return getattr(_thread, "is_watched", False)


def give_back_idle() -> float | None:
    """
    Closes this thread's own connections that nothing has used for some seconds.

    Also those that an error has left unusable, such as a restart of the server: as Django between
    two requests, but however old the others are, they stay. Those in a transaction, or being read,
    are left alone. To be called after each call that may have used a connection.

    Returns:
        The seconds until there may be one to close; None when none is open.
    """
    if not _has_any():
        return None
    lefts = []
    for connection in _own():
        use = Use.of(connection)
        if not is_in_any_transaction(connection):
            _close_if_unusable(connection)
            if connection.connection is not None and use.time_left <= 0 and not use.is_being_read:
                connection.close()
        if connection.connection is not None:
            lefts.append(use.time_left if use.time_left > 0 else IDLE_AFTER_S)
    return min(lefts, default=None)


def _close_if_unusable(connection: BaseDatabaseWrapper) -> None:
    if connection.errors_occurred and not is_in_any_transaction(connection):
        with ageless(connection):
            connection.close_if_unusable_or_obsolete()


def in_transaction() -> bool:
    """Whether this thread is in a transaction, the one around a test case not counted."""
    return any(map(is_in_transaction, _initialized()))


def sees_commits() -> bool:
    """
    Whether a query on this thread would see what was committed until now, and nothing else.

    In a transaction it may see older rows, or some that are rolled back later. That of a test case
    has all that the test knows.
    """
    return not any(
        is_in_any_transaction(connection) and not is_in_test_case(connection)
        for connection in _initialized()
    )


def is_needed() -> bool:
    """Whether closing one of this thread's own connections would lose something."""
    return any(map(_is_needed, _own()))


def has_own() -> bool:
    """Whether this thread has an open connection of its own."""
    return bool(_own())


def leave() -> None:
    """Closes this thread's own connections, also those in use, and ends their transactions."""
    for connection in _own():
        if not is_in_test_case(connection):
            # Else Django keeps a block of `atomic()` that nothing leaves any more, and refuses to
            # open the connection again.
            connection.in_atomic_block = False
        connection.close()


def _initialized() -> Iterable[BaseDatabaseWrapper]:
    return connections.all(initialized_only=True) if _has_any() else []


def _own() -> list[BaseDatabaseWrapper]:
    return [
        connection
        for connection in _initialized()
        if connection.connection is not None and not connection.allow_thread_sharing
    ]


def _is_needed(connection: BaseDatabaseWrapper) -> bool:
    if is_in_any_transaction(connection):
        return True
    wrappers = connection.execute_wrappers
    return any(isinstance(wrapper, Use) and wrapper.is_being_read for wrapper in wrappers)


class Use:
    """
    When a thread's connection was used last, and whether it is being read.

    It is an ``execute_wrapper`` of the connection, which calls it for each query.
    """

    __slots__ = ("connection", "cursors", "used_at")

    def __init__(self, connection: BaseDatabaseWrapper) -> None:
        self.connection = connection
        self.used_at = clock.now()
        #: The cursor of a queryset is alive as long as code iterates over the queryset.
        self.cursors: WeakSet[Any] = WeakSet()

    @classmethod
    def of(cls, connection: BaseDatabaseWrapper) -> Use:
        """Returns the one of a connection, which watches from now on if it did not."""
        for wrapper in connection.execute_wrappers:
            if isinstance(wrapper, cls):
                return wrapper
        use = cls(connection)
        # At the front: Django's `execute_wrapper()` appends its wrapper, and later pops the last.
        connection.execute_wrappers.insert(0, use)
        return use

    def __call__(self, execute: Any, sql: Any, params: Any, many: Any, context: Any) -> Any:
        cursor = context["cursor"]
        self.cursors.add(cursor)
        try:
            return execute(sql, params, many, context)
        except BaseException:
            # It has no rows, and the exception's traceback may keep it alive for long.
            self.cursors.discard(cursor)
            raise
        finally:
            self.used_at = clock.now()

    @property
    def is_being_read(self) -> bool:
        """Whether a cursor may have rows that were not fetched yet."""
        # Of a library whose cursors do not say, each counts until it is freed.
        return any(not getattr(cursor, "closed", False) for cursor in list(self.cursors))

    @property
    def time_left(self) -> float:
        """The seconds until it has not been used for long."""
        return self.used_at + IDLE_AFTER_S - clock.now()

    def end(self) -> None:
        """Watches no more."""
        with suppress(ValueError):
            self.connection.execute_wrappers.remove(self)


class OpenConnections:
    """
    The connections that the threads (green threads) of one view have opened.

    Any thread may use it. Each thread asks only about its own connections.
    """

    def __init__(self) -> None:
        # Never held while a connection is opened or closed.
        self._lock = unpatched.lock()
        self._uses: dict[int, dict[str, Use]] = {}
        # For each thread, the time before which none of its connections can be idle for too long.
        self._look_at: dict[int, float] = {}

    def note(self, connection: BaseDatabaseWrapper) -> None:
        """Notes that this thread has opened ``connection``."""
        thread = threading.get_ident()
        for other in list(self._uses):
            # Other threads may have ended, which closed their connections.
            self._forget_closed(other, but=connection)
        use = Use.of(connection)
        use.used_at = clock.now()
        with self._lock:
            self._uses.setdefault(thread, {})[connection.alias] = use
            self._look_at[thread] = clock.now() + IDLE_AFTER_S

    def give_back_idle(self, idle_after: float = IDLE_AFTER_S) -> None:
        """
        Closes this thread's connections that are not needed and have been idle for so long.

        Also those that an error has left unusable, as :func:`give_back_idle`.
        """
        thread = threading.get_ident()
        if (look_at := self._look_at.get(thread)) is None:
            return
        uses = self._uses.get(thread, {})
        for use in list(uses.values()):
            _close_if_unusable(use.connection)
        now = clock.now()
        if idle_after and now < look_at:
            return
        self._forget_closed(thread)
        for use in list(uses.values()):
            if now - use.used_at >= idle_after and not _is_needed(use.connection):
                # Not `close_old_connections()`: it keeps connections that are not old.
                use.connection.close()
        self._forget_closed(thread)
        if thread in self._uses:
            first = min(use.used_at for use in uses.values()) + IDLE_AFTER_S
            # Connections in transactions were checked just now: do not check them at each call.
            self._look_at[thread] = max(first, now + IDLE_AFTER_S / 10)

    def end(self) -> None:
        """Watches this thread's connections no more."""
        thread = threading.get_ident()
        for use in self._uses.pop(thread, {}).values():
            use.end()
        self._look_at.pop(thread, None)

    def _forget_closed(self, thread: int, but: BaseDatabaseWrapper | None = None) -> None:
        with self._lock:
            uses = self._uses.get(thread, {})
            for alias, use in list(uses.items()):
                if use.connection.connection is None and use.connection is not but:
                    use.end()
                    del uses[alias]
            if not uses:
                self._uses.pop(thread, None)
                self._look_at.pop(thread, None)


def shareable() -> dict[str, BaseDatabaseWrapper]:
    """
    Returns this thread's connections that Django allows other threads to use.

    They are the connections of a live test server's SQLite database in memory, which another
    thread could not see otherwise.
    """
    return {each.alias: each for each in _initialized() if each.allow_thread_sharing}


def borrow(shared: dict[str, BaseDatabaseWrapper]) -> None:
    """Makes this thread use another thread's connections, those from :func:`shareable`."""
    for alias, connection in shared.items():
        connections[alias] = connection


def forget(shared: dict[str, BaseDatabaseWrapper]) -> None:
    """Reverts :func:`borrow`."""
    for alias in shared:
        del connections[alias]


@contextmanager
def in_use(shared: dict[str, BaseDatabaseWrapper]) -> Iterator[None]:
    """Calls :func:`close_old_connections` before and after a block, as Django around a request."""
    close_old_connections()
    borrow(shared)
    try:
        yield
    finally:
        forget(shared)
        close_old_connections()
