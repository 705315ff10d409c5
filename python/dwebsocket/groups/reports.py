"""What backends report: their server is away, it is back, a member is slow."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING
from weakref import ref

from dwebsocket import unpatched

if TYPE_CHECKING:
    from dwebsocket.groups.backend import Backend

_log = logging.getLogger("dwebsocket")
_NAME = "dwebsocket-groups"
# How often the thread looks whether its backend is still in use.
_GLANCE_S = 5.0


def start(backend: Backend) -> None:
    """
    Starts a thread that reports what happens to a backend, as long as that is in use.

    To be called once for a backend, in the process that uses it.
    """
    weak, process = ref(backend), os.getpid()

    def work() -> None:
        while os.getpid() == process and (backend := weak()) is not None:
            groups = backend.groups
            del backend
            notice = groups.take_notice(_GLANCE_S)
            if notice is not None and (backend := weak()) is not None:
                report(backend, *notice)
                del backend

    unpatched.start_thread(_NAME, work)


def report(backend: Backend, kind: str, texts: list[str]) -> None:
    """
    Reports one event.

    Args:
        backend: The one to which it happened.
        kind: As of :meth:`dwebsocket._core.Groups.take_notice`.
        texts: The texts of the event.
    """
    where = f"groups of {backend.alias!r}" + (f" at {backend.address}" if backend.address else "")
    if kind == "lost":
        _log.warning("%s: the server is lost: %s", where, texts[0])
    elif kind == "regained":
        _log.info("%s: the server is regained", where)
    elif kind == "slow":
        _log.warning("%s: a member of %r is slow and misses messages", where, texts[0])
    elif kind == "interrupted":
        # Members of the groups `texts` may have missed messages: the place for the signal
        # `group_interrupted`.
        pass
