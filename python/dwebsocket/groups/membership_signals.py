"""The signals about memberships: ``group_joined``, ``group_left``, ``group_interrupted``."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Protocol, cast
from weakref import WeakSet

from dwebsocket import signals
from dwebsocket.api.waiting.steps import Call, run
from dwebsocket.compat import unpatched
from dwebsocket.compat.system import renew_at_fork
from dwebsocket.groups import backends, names
from dwebsocket.groups.members import key_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from django.dispatch import Signal
    from django.http import HttpRequest

    from dwebsocket.api.base import Base
    from dwebsocket.api.ending import Ending
    from dwebsocket.api.waiting.steps import Steps
    from dwebsocket.groups.backends.contract import Member


class Named(Protocol):
    """The parts of a :class:`~dwebsocket.groups.api.Group` that are needed here."""

    name: str
    using: str


# The connections that have joined groups while a signal had receivers.
_joined: WeakSet[Base] = WeakSet()
# Around each use of it: a set that grows cannot be iterated.
_lock = unpatched.lock()


def is_new(group: Named, member: Member) -> bool:
    """Whether joining ``group`` is to be announced: it is no group of ours, and no repetition."""
    if not _has_receivers() or group.name.startswith(names.OWN):
        return False
    return not backends.backend(group.using).groups.is_member(group.name, member)


def note_joined(group: Named, websocket: Base) -> Steps[None]:
    """
    Sends ``group_joined``, and ``group_left`` when the membership or the connection ends.

    Nothing for one that the connection has by another name already: as a room, or beside one.
    """
    is_first, is_new = _note(group, websocket)
    try:
        if is_new:
            yield _sent(signals.group_joined, group, websocket)
    finally:
        if is_first:
            _leave_at_end(websocket)


def note_at_opening(groups: Iterable[Named], websocket: Base, *, is_moved: bool = False) -> None:
    """
    Notes groups that a connection has joined as it opened; the signals follow its opening.

    Of those that one has joined in another process only the ends are told.
    """
    noted = Counter(groups) if _has_receivers() else None
    if not noted:
        return
    websocket._groups_noted = noted

    def announce() -> None:
        request = websocket._view_request
        with _lock:
            _joined.add(websocket)
        for group in () if is_moved else list(noted):
            signals.send(signals.group_joined, websocket, request, group=group)
        _leave_at_end(websocket)

    websocket._announce_groups = announce


def note_left(group: Named, websocket: Base) -> Steps[None]:
    """
    Sends ``group_left``, unless the membership was not noted, or its end was sent already.

    Nor while the connection is in the group by another name.
    """
    noted = websocket._groups_noted
    with _lock:
        if is_by_another := noted is not None and noted[group] > 1:
            noted[group] -= 1
    if not is_by_another and _take(group, websocket):
        yield _sent(signals.group_left, group, websocket)


def note_evicted(group: Named, key: bytes) -> None:
    """
    Sends ``group_left``, as :func:`note_left`, for the connection that was evicted by its ``id``.

    Args:
        group: The group that it has left.
        key: The engine's key for the ``id``.
    """
    with _lock:
        joined = list(_joined)
    for websocket in joined:
        if key_of(websocket.id) == key:
            run(note_left(group, websocket))


def _sent(signal: Signal, group: Named, websocket: Base) -> Call:
    request = websocket._view_request
    return Call(signals.send, signals.asend, signal, websocket, request, group=group)


def note_interrupted(using: str, interrupted: Iterable[str]) -> None:
    """
    Sends ``group_interrupted`` for each member in this process.

    Args:
        using: The backend's alias.
        interrupted: The names of the groups that may have missed messages.
    """
    if not signals.group_interrupted.receivers:
        return
    wanted = set(interrupted)
    with _lock:
        joined = list(_joined)
    for websocket in joined:
        for group in list(websocket._groups_noted or ()):
            if group.using == using and group.name in wanted:
                request = websocket._view_request
                signals.send(signals.group_interrupted, websocket, request, group=group)


def _has_receivers() -> bool:
    return bool(
        signals.group_joined.receivers
        or signals.group_left.receivers
        or signals.group_interrupted.receivers
    )


def _note(group: Named, websocket: Base) -> tuple[bool, bool]:
    """Notes a group; returns whether it is the connection's first one, and whether it is new."""
    with _lock:
        is_first = websocket._groups_noted is None
        noted = websocket.__dict__.setdefault("_groups_noted", Counter())
        noted[group] += 1
        is_new = noted[group] == 1
        if is_first:
            _joined.add(websocket)
    return is_first, is_new


renew_at_fork(globals(), _lock=unpatched.lock)


def _leave_at_end(websocket: Base) -> None:
    # Called after `group_joined`: after an end that has come before, the call is made at once.
    # Every WebSocket has this call; it stands above the part that is known here.
    cast("Ending", websocket).on_close(_leave_all, websocket, websocket._view_request)


def _take(group: Named, websocket: Base) -> bool:
    noted = websocket._groups_noted
    # Of several calls one gets it.
    return noted is not None and noted.pop(group, None) is not None


def _leave_all(websocket: Base, request: HttpRequest | None) -> None:
    for group in list(websocket._groups_noted or ()):
        if _take(group, websocket):
            signals.send_of_end(signals.group_left, websocket, request, group=group)
