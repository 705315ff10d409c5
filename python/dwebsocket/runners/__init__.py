"""
The threads on which views run: one file for each kind, behind one interface.

:mod:`view` is the life of a view, on any kind of thread; :mod:`loop` runs async views.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from django.db.backends.signals import connection_created

from dwebsocket.api import close_callbacks
from dwebsocket.api.base import made_once, own_websocket
from dwebsocket.compat.system import monotonic
from dwebsocket.request.database import OpenConnections
from dwebsocket.runners import handler, loop, thread

if TYPE_CHECKING:
    from django.db.backends.base.base import BaseDatabaseWrapper

    from dwebsocket.runners.contract import Runner

_in_use: dict[str, Runner] = {"thread": thread}


def _on_connection(connection: BaseDatabaseWrapper, **_: Any) -> None:
    """Notes a database connection that a thread of a view has opened."""
    websocket = own_websocket.get()
    if websocket is not None:
        made_once(websocket, "_held", OpenConnections).note(connection)


connection_created.connect(_on_connection, dispatch_uid="dwebsocket.held")


def runner_of(concurrency: str) -> Runner:
    """
    Returns the runner for views on one kind of threads.

    Args:
        concurrency: As :attr:`dwebsocket.servers.contract.Client.concurrency`. Other kinds than
            ``"thread"`` are modules of this package, which import their libraries.
    """
    if concurrency not in _in_use:
        _in_use[concurrency] = import_module(f"dwebsocket.runners.{concurrency}").RUNNER
    return _in_use[concurrency]


def join(timeout: float) -> bool:
    """
    Waits until no view of this process runs, ``timeout`` seconds at most.

    It also waits for handlers, and for the ``on_close`` callbacks of connections that have ended.

    Returns:
        Whether none runs. False when the time was up.
    """
    deadline = monotonic() + timeout
    kinds = [*(runner.join for runner in _in_use.values()), loop.join]
    # Join every kind, also after one that took all the time: it gives green threads a turn.
    ended = [join(deadline - monotonic()) for join in kinds]
    # Where this thread has green ones, they run meanwhile.
    waiter = list(_in_use.values())[-1].waiter
    while _is_busy() and monotonic() < deadline:
        for each in (handler.ended(), *close_callbacks.pending()):
            waiter.wait_until(each, deadline - monotonic())
    return all(ended) and not _is_busy()


def _is_busy() -> bool:
    return close_callbacks.is_pending() or handler.is_busy()
