"""How ASGI servers end their processes, and whether connections go on in others of them."""

from __future__ import annotations

import asyncio
import os
import threading
from functools import partial
from typing import TYPE_CHECKING, Any

from dwebsocket.compat import hypercorn, uvicorn
from dwebsocket.servers import hosts
from dwebsocket.servers.contract import Client, ShutdownPlan
from dwebsocket.servers.families import gunicorn

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dwebsocket.servers.asgi.closing import Served
    from dwebsocket.servers.contract import Heirs, Receive, Send, ShutdownPlanner

_has_signal = _is_hypercorn = False
# hypercorn's of this process.
_context: Any = None
# For each server the seconds that it waits, in its configuration, and the option that sets them.
_LIMITS = {
    "uvicorn": ("timeout_graceful_shutdown", "uvicorn's --timeout-graceful-shutdown"),
    "hypercorn": ("shutdown_timeout", "hypercorn's shutdown_timeout"),
}


def shutdown_plan(server: str, config: Any) -> ShutdownPlanner:
    """Returns how a server with this configuration ends its process."""
    if server == "gunicorn":
        return gunicorn.shutdown_plan()
    if (worker := uvicorn.worker_of(config)) is not None:
        return gunicorn.plan_of_uvicorn(worker)
    attribute, limit = _LIMITS.get(server, ("", ""))
    timeout_s, is_alone = getattr(config, attribute, None) or None, _parent() is None

    def plan(*, terminated: bool) -> ShutdownPlan:
        if not is_alone and _is_worn_out(server):
            return ShutdownPlan(timeout_s, limit, goes_on=True, heirs="soon")
        # Else it does not learn why it ends. If all of its server do, they are soon not there.
        heirs: Heirs = "of others" if is_alone else "there"
        return ShutdownPlan(timeout_s, limit, heirs=heirs)

    return plan


def note_signal() -> None:
    """Notes that a signal ends this process."""
    global _has_signal
    _has_signal = True


def look_at(send: Send) -> None:
    """Has a look at a connection, whose server may say by it why this process ends."""
    global _context
    if _context is None and _is_hypercorn:
        _context = hypercorn.context_of(send)


def _is_worn_out(server: str) -> bool:
    """Whether this process ends because it has had its number of requests."""
    if server == "hypercorn":
        return _context is not None and _context.terminate.is_set()
    return not _has_signal and hosts.find() is not None


def config_of(receive: Receive) -> tuple[str, Any] | None:
    """Returns the name and the configuration of a server, by the ``receive`` of its lifespan."""
    for name, find in (("uvicorn", uvicorn.config_of), ("hypercorn", hypercorn.config_of)):
        if (config := find(receive)) is not None:
            return name, config
    return None


def note(server: str, config: Any, served: Served | None, state: Mapping[str, Any]) -> bool:
    """
    Notes the server of the running loop as that of this process, if connections can move there.

    Args:
        served: Its connections, as far as it tells which ones are its own.
        state: That of its lifespan.
    """
    global _is_hypercorn
    if server not in _LIMITS or threading.current_thread() is not threading.main_thread():
        # A server beside other things, such as tests.
        return False
    _is_hypercorn = server == "hypercorn"
    loop = asyncio.get_running_loop()
    worker = uvicorn.worker_of(config)
    number = _parent() if worker is None else getattr(worker, "ppid", None)
    client = Client(server, -1, bytes, shutdown_plan=partial(shutdown_plan, server, config))
    add = None if served is None else served.add
    hosts.note(hosts.Host(number or os.getpid(), client, hosts.Loop(loop, add, state)))
    return True


def _parent() -> int | None:
    """Returns the number of the process that has started this one, as one of several or not."""
    from multiprocessing import parent_process  # other servers need nothing of it

    parent = parent_process()
    return None if parent is None else parent.pid
