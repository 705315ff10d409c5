"""Reports of backends, in the log and by signals: a server is away, a member slow, a user gone."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING
from weakref import ref

from django.db import connections

from dwebsocket import signals, unpatched
from dwebsocket.groups.api import Group
from dwebsocket.groups.membership_signals import note_interrupted

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
    where = f"Groups of {backend.alias!r}" + (f" at {backend.address}" if backend.address else "")
    extra = {"event": f"groups.{kind}"}
    if kind == "lost":
        _log.warning("%s: the server is lost: %s", where, texts[0], extra=extra)
    elif kind == "regained":
        _log.info("%s: the server is regained", where, extra=extra)
    elif kind == "slow":
        text = "%s: a member of %r is slow and misses messages"
        _log.warning(text, where, texts[0], extra=extra)
    elif kind == "interrupted":
        backend.presence_interrupted(*texts)
        try:
            note_interrupted(backend.alias, texts)
        finally:
            # Those that receivers of the signal have used on this thread.
            connections.close_all()
    elif kind == "members_left":
        try:
            for name, member in backend.presence.take_departed():
                group = Group(name, backend.alias)
                signals.send(signals.member_left, None, None, group=group, member=member)
        finally:
            connections.close_all()
