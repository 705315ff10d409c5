"""Reports of backends, in the log and by signals: a server is away, a member slow, a user gone."""

from __future__ import annotations

import logging
import os
from functools import partial
from typing import TYPE_CHECKING
from weakref import finalize, ref

from django.db import connections
from django.dispatch import Signal

from dwebsocket import signals
from dwebsocket.api.waiting.steps import run
from dwebsocket.compat import unpatched
from dwebsocket.groups import names, seats
from dwebsocket.groups.api import Group, leave_all
from dwebsocket.groups.backends import node
from dwebsocket.groups.backends.contract import Backend
from dwebsocket.groups.membership_signals import note_evicted, note_interrupted

if TYPE_CHECKING:
    from dwebsocket import _core

_log = logging.getLogger("dwebsocket")
_NAME = "dwebsocket-groups"

#: Sent on the thread of the reports, with ``using``, when what others publish may not have come
#: here; with the ``groups`` that are known to be concerned, if any. For the package: projects
#: have ``group_interrupted``.
interrupted = Signal()
# The level and the text of events, which the backend and the texts of the event fill in.
_LOGGED = {
    "lost": (logging.WARNING, "%s: the %s is lost: %s"),
    "regained": (logging.INFO, "%s: the %s is regained"),
    "slow": (logging.WARNING, "%s: a member of %r is slow and misses messages"),
    "restarted": (logging.ERROR, "%s: %s failed, and began anew"),
    "full_disk": (
        logging.WARNING,
        "%s: the disk of %s is full: older messages of the history are deleted",
    ),
    "damaged": (logging.WARNING, "%s: %s was damaged: the numbering of its group begins anew"),
}


def start(backend: Backend) -> None:
    """
    Starts a thread that reports what happens to a backend, as long as that is in use.

    To be called once for a backend, in the process that uses it.
    """
    weak, groups, process = ref(backend), backend.groups, os.getpid()

    def work() -> None:
        while os.getpid() == process and weak() is not None:
            notice = groups.take_notice(None)
            if notice is not None and (backend := weak()) is not None:
                try:
                    unpatched.run_code(partial(report, backend, *notice))
                except BaseException:
                    # The next event is reported, whatever this one's receivers do.
                    _log.exception("An event of groups could not be reported")
                del backend

    finalize(backend, _end, groups, process).atexit = False
    unpatched.start_thread(_NAME, work)


def _end(groups: _core.Groups, process: int) -> None:
    # In a forked child the thread does not run, and may have left a lock behind.
    if os.getpid() == process:
        groups.end_notices()


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
    if kind in ("regained", "interrupted"):
        seats.note_interruption(backend.alias)
        node.note_interruption(backend)
        groups = texts if kind == "interrupted" else []
        interrupted.send_robust(sender=None, using=backend.alias, groups=groups)
    if kind in ("lost", "regained"):
        texts = [backend.medium, *(texts if kind == "lost" else ())]
    if (logged := _LOGGED.get(kind)) is not None:
        level, text = logged
        _log.log(level, text, where, *texts, extra=extra)
    elif kind == "interrupted":
        backend.presence_interrupted(*texts)
        try:
            note_interrupted(backend.alias, texts)
        finally:
            # The connections that receivers of the signal have used on this thread.
            connections.close_all()
    elif kind == "seat_ended":
        seats.note_end(int(texts[0]))
    elif kind == "evicted":
        try:
            _evict(backend, *texts)
        finally:
            connections.close_all()
    elif kind == "members_left":
        try:
            for name, member, is_back in backend.presence.take_departed():
                group = Group(name, backend.alias)
                signal = signals.member_joined if is_back else signals.member_left
                signals.send(signal, None, None, group=group, member=member)
        finally:
            connections.close_all()


def _evict(backend: Backend, name: str, what: str, whom: str) -> None:
    """
    Takes the connections of a user that are in no room out of a group.

    Others are the engine's business: those in rooms have left by themselves, and were told, and
    one that is named has left.
    """
    if what == "member":
        note_evicted(Group(name, backend.alias), bytes.fromhex(whom))
    elif (user := names.user_of_plain(whom)) is not None:
        run(leave_all(Group(name, backend.alias), user))


def register() -> None:
    """Has the backends of this process reported from their first member, or first use, on."""
    Backend.reporter = start
