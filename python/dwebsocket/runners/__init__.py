"""
Where views run: one file for each kind of thread, behind one contract.

:mod:`view` is the life of a view, wherever it runs; :mod:`loop` runs the async ones.
"""

from __future__ import annotations

import time
from importlib import import_module
from typing import TYPE_CHECKING

from dwebsocket.api import close_callbacks
from dwebsocket.runners import green_loops, loop, view_databases
from dwebsocket.runners.thread import RUNNER

if TYPE_CHECKING:
    from dwebsocket.runners.contract import Runner

# Between two looks whether callbacks have run.
_LOOK_S = 0.01

_in_use: dict[str, Runner] = {"thread": RUNNER}

green_loops.watch_first_request()
view_databases.watch_connections()


def runner_of(concurrency: str) -> Runner:
    """
    Gives the runner for views on one kind of threads.

    Args:
        concurrency: As :attr:`dwebsocket.servers.contract.Client.concurrency`. Other kinds than
            ``"thread"`` are modules of this package, which import their libraries.
    """
    if concurrency not in _in_use:
        _in_use[concurrency] = import_module(f"dwebsocket.runners.{concurrency}").RUNNER
    return _in_use[concurrency]


def join(timeout: float) -> bool:
    """
    Lets all views of this process go on until none runs, ``timeout`` seconds at most.

    So it does with the callbacks of ``on_close`` of connections that have ended.

    Returns:
        Whether none runs. False when the time was up.
    """
    deadline = time.monotonic() + timeout
    kinds = [*(runner.join for runner in _in_use.values()), loop.join]
    # Every kind, also after one whose views took all the time.
    ended = [join(deadline - time.monotonic()) for join in kinds]
    while close_callbacks.is_pending() and time.monotonic() < deadline:
        for runner in list(_in_use.values()):
            runner.waiter.sleep(_LOOK_S)
    return all(ended) and not close_callbacks.is_pending()
