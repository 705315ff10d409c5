"""
Calls that wait for a commit, in each way in which Django makes transactions, versions 4.2 to 6.1.

``transaction.on_commit`` raises in manual mode, that is where autocommit is off: in the middle of
``save()``, which then fails. Even within ``atomic()`` its calls wait there until autocommit is on
again, which may be never.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from django.db import transaction

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.db.backends.base.base import BaseDatabaseWrapper

_log = logging.getLogger("dwebsocket")


def is_in_transaction(connection: BaseDatabaseWrapper) -> bool:
    """
    Whether a connection is in ``atomic()`` or in manual mode. Opens none.

    ``BaseDatabaseWrapper.autocommit``, since 1.6: ``get_autocommit()`` would open one.
    """
    # A connection that is closed, or was not used yet, has no transaction and no mode.
    is_manual = connection.connection is not None and not connection.autocommit
    return connection.in_atomic_block or is_manual


def after_commit(call: Callable[[], object], using: str, *, robust: bool = False) -> None:
    """
    Calls ``call`` when this thread's transaction is committed, at once outside of one.

    After a rollback it is never called. In manual mode ``connection.commit()`` calls it, and
    commits what it has written there. With a database that has no transactions it is called as
    Django does it: at the end of ``atomic()``.

    Args:
        call: Takes no arguments.
        using: The alias of the database.
        robust: Whether its exceptions are logged, not raised.

    Raises:
        Exception: That of ``call``, here or in the commit.
    """
    waiting = _Call(call, robust=robust)
    connection = transaction.get_connection(using)
    if not is_in_transaction(connection):
        waiting()
    elif connection.in_atomic_block and connection.commit_on_exit:
        transaction.on_commit(waiting, using=using)
    else:
        _wait_for_commit(connection, waiting)


def calls_at_commit(connection: BaseDatabaseWrapper) -> int:
    """
    Counts what waits for the end of the present ``atomic()``, and what a test has called already.

    ``run_on_commit``, since 1.9: ``captureOnCommitCallbacks`` leaves in it what it has called.
    """
    return len(connection.run_on_commit) if connection.in_atomic_block else 0


class _Call:
    """One of our calls, which :class:`_Commit` tells from those of others."""

    def __init__(self, call: Callable[[], object], *, robust: bool) -> None:
        self._call = call
        self._robust = robust

    def __call__(self) -> None:
        try:
            self._call()
        except Exception:
            if not self._robust:
                raise
            _log.exception("A call after a commit has failed")


def _wait_for_commit(connection: BaseDatabaseWrapper, waiting: _Call) -> None:
    """
    Leaves a call to the next ``commit()`` in manual mode.

    ``run_on_commit``, since 1.9, with three parts in an entry since 4.2: Django empties it at a
    rollback, and takes those of a savepoint out. ``commit_on_exit``, since 1.6: false in an
    ``atomic()`` within manual mode.
    """
    entries: list[Any] = connection.run_on_commit
    entries.append((set(connection.savepoint_ids), waiting, False))
    if not isinstance(vars(connection).get("commit"), _Commit):
        connection.commit = _Commit(connection)  # type: ignore[method-assign]


class _Commit:
    """``connection.commit`` until the next commit, which makes the calls that wait for it."""

    def __init__(self, connection: BaseDatabaseWrapper) -> None:
        self._connection = connection
        self._commit = connection.commit

    def __call__(self) -> None:
        self._commit()
        connection = self._connection
        if vars(connection).get("commit") is self:
            del connection.commit
        entries: list[Any] = connection.run_on_commit
        # The hooks of others wait until autocommit is on, as Django has it.
        connection.run_on_commit = [each for each in entries if not isinstance(each[1], _Call)]
        try:
            for _, call, _ in entries:
                if isinstance(call, _Call):
                    call()
        finally:
            # Their writes, such as a NOTIFY, are in a transaction of their own.
            self._commit()
