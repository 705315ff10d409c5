"""
The test's database connections, for all threads.

A test's data is in a transaction that is never committed, or in an in-memory database of one
connection. So while a test has WebSockets, every thread of the process uses the test's own
connections: the views', those of ``sync_to_async``, and a live server's. The threads take turns:
for each statement, and for each ``transaction.atomic()`` as a whole.
"""

from __future__ import annotations

import functools
import threading
import traceback
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from django.db import connections, transaction

from dwebsocket.compat.asyncio import running_loop
from dwebsocket.compat.django_auth import is_around_a_test
from dwebsocket.compat.django_commits import calls_at_commit
from dwebsocket.compat.django_test import connection_store, is_the_tests_own, set_connection_store
from dwebsocket.compat.threading import frame_of
from dwebsocket.handshake import upgrade

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from django.db.backends.base.base import BaseDatabaseWrapper

# Seconds to wait for a turn: longer than any statement of a test takes.
_TIMEOUT_S = 10.0


class DatabaseBusy(AssertionError):
    """Another thread of the test has been in a transaction for too long."""


class _Turns:
    """The lock around the connections. It is reentrant: a thread may take its turn repeatedly."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._holder: int | None = None
        # How often that thread has taken its turn.
        self._depth = 0

    def take(self) -> None:
        if not self._lock.acquire(timeout=_TIMEOUT_S):
            holder = frame_of(self._holder)
            stack = "".join(traceback.format_stack(holder)) if holder else "  it has gone\n"
            raise DatabaseBusy(
                f"The test and its views share one database connection, and another thread has "
                f"been in a transaction for {_TIMEOUT_S:g} s:\n{stack}"
            )
        self._holder = threading.get_ident()
        self._depth += 1

    def _own(self) -> int:
        return self._depth if self._holder == threading.get_ident() else 0

    def give_back(self) -> None:
        # A transaction that began before the sharing has taken no turn: the lock is not its own.
        if self._own():
            self._depth -= 1
            self._lock.release()

    @contextmanager
    def lent(self) -> Iterator[None]:
        """Lets other threads have turns for a block, also within a transaction of this one."""
        own = self._own()
        for _ in range(own):
            self.give_back()
        try:
            yield
        finally:
            for _ in range(own):
                self.take()


class _Seen:
    """Replaces the storage of `django.db.connections`: shared connections first, then own ones."""

    def __init__(self, own: Any, shared: dict[str, BaseDatabaseWrapper]) -> None:
        self.__dict__.update(_own=own, _shared=shared)

    def __getattr__(self, alias: str) -> Any:
        shared = self.__dict__["_shared"]
        return shared[alias] if alias in shared else getattr(self.__dict__["_own"], alias)

    def __setattr__(self, alias: str, connection: Any) -> None:
        if alias not in self.__dict__["_shared"]:
            setattr(self.__dict__["_own"], alias, connection)

    def __delattr__(self, alias: str) -> None:
        if alias not in self.__dict__["_shared"]:
            delattr(self.__dict__["_own"], alias)


class _Sharing:
    """
    Shares the connections of one test's thread with all threads.

    Attributes:
        owner: That thread. None as long as only event loops have asked, which run on others.
    """

    def __init__(self) -> None:
        self.owner: int | None = None
        self._turns = _Turns()
        self._shared: dict[str, BaseDatabaseWrapper] = {}
        self._own: Any = connection_store()
        self._undo = ExitStack()

    def begin(self) -> None:
        self.extend()
        self._wrap_transactions()
        set_connection_store(_Seen(self._own, self._shared))
        # A request may wait in its transaction (ATOMIC_REQUESTS) for a view that has none.
        self._undo.callback(setattr, upgrade, "around_wait", upgrade.around_wait)
        upgrade.around_wait = self._turns.lent

    def extend(self) -> None:
        """Shares connections that the test has opened since. Does nothing on other threads."""
        if running_loop() is not None or self.owner not in (None, threading.get_ident()):
            return
        self.owner = threading.get_ident()
        for alias in connections:
            if alias not in self._shared and is_the_tests_own(connection := connections[alias]):
                self._share(alias, connection)

    def _share(self, alias: str, connection: BaseDatabaseWrapper) -> None:
        connection.inc_thread_sharing()
        self._undo.callback(connection.dec_thread_sharing)
        # At the front: Django's `execute_wrapper` appends its wrapper, and later pops the last.
        connection.execute_wrappers.insert(0, self._in_turn)
        self._undo.callback(connection.execute_wrappers.remove, self._in_turn)
        instead = {
            "close": functools.partial(self._close, connection.close),
            # Views call this when they begin and end. It would close a connection that is in a
            # transaction; Django's test client disables it, too.
            "close_if_unusable_or_obsolete": lambda: None,
        }
        connection.__dict__.update(instead)
        for name in instead:
            self._undo.callback(connection.__dict__.pop, name)
        self._shared[alias] = connection

    def end(self) -> None:
        set_connection_store(self._own)
        self._undo.close()

    def _in_turn(self, execute: Any, sql: Any, params: Any, many: Any, context: Any) -> Any:
        self._turns.take()
        try:
            return execute(sql, params, many, context)
        finally:
            self._turns.give_back()

    def _close(self, close: Callable[[], None]) -> None:
        # Other threads close "their" connections when they end: ignore that.
        if threading.get_ident() == self.owner:
            close()

    def _wrap_transactions(self) -> None:
        atomic, turns, shared = transaction.Atomic, self._turns, self._shared
        enter, exit_ = atomic.__enter__, atomic.__exit__

        def has_turn(self: Any) -> bool:
            # That around a test is around all that runs in it.
            return (self.using or "default") in shared and not is_around_a_test(self)

        def enter_in_turn(self: Any) -> None:
            if not has_turn(self):
                enter(self)
                return
            turns.take()
            try:
                enter(self)
            except BaseException:
                turns.give_back()
                raise

        def exit_in_turn(self: Any, *exception: Any) -> None:
            try:
                exit_(self, *exception)
            finally:
                if has_turn(self):
                    turns.give_back()

        atomic.__enter__, atomic.__exit__ = enter_in_turn, exit_in_turn  # type: ignore[method-assign]
        self._undo.callback(setattr, atomic, "__enter__", enter)
        self._undo.callback(setattr, atomic, "__exit__", exit_)


_lock = threading.Lock()
_users = 0
_sharing: _Sharing | None = None


@contextmanager
def shared_databases() -> Iterator[None]:
    """
    Returns every thread of the process this thread's test database connections.

    To be entered in the test's own thread. In an async test, which runs in an event loop's, the
    sharing begins when it is entered again by ``sync_to_async``. When it is entered again after
    that, on any thread, the first thread's connections stay shared.
    """
    global _users, _sharing
    with _lock:
        if not _users:
            _sharing = _Sharing()
            _sharing.begin()
        elif _sharing is not None:
            _sharing.extend()
        _users += 1
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            if not _users and _sharing is not None:
                _sharing.end()
                _sharing = None


def is_sharing() -> bool:
    """Whether some thread's connections are shared with all threads now."""
    return _sharing is not None and _sharing.owner is not None


def about_commits() -> str:
    """Says that a test commits nothing, where calls wait for a commit; else it is empty."""
    shared = {} if _sharing is None else _sharing._shared
    waiting = {alias: calls_at_commit(connection) for alias, connection in shared.items()}
    found = " and ".join(f"{count} in {alias!r}" for alias, count in waiting.items() if count)
    if not found:
        return ""
    return (
        " A message that waits for a commit is sent at the end of a block `with "
        "self.captureOnCommitCallbacks(execute=True)` (pytest-django: "
        "`django_capture_on_commit_callbacks`), and not without one: this test's transaction is "
        f"never committed. Calls of `on_commit` so far: {found}. See docs/testing.md, Groups."
    )
