"""Holding several groups at once: their messages come to this process, also without members."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dwebsocket.api.waiting.steps import Call
from dwebsocket.groups import backends

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dwebsocket.api.waiting.steps import Steps
    from dwebsocket.groups.api import Group
    from dwebsocket.groups.backends.contract import Backend

    #: Backends, and the names of the groups that are held there.
    HeldNames = list[tuple[Backend, list[str]]]


def hold(groups: Iterable[Group]) -> Steps[HeldNames]:
    """
    Subscribes to all of these groups.

    Returns:
        The holds, which have to be released.

    Raises:
        GroupUnavailable: The backend of one of them cannot be reached; none is held then.
    """
    held: HeldNames = []
    try:
        for backend, names in _by_backend(groups):
            yield Call(backend.hold_all, backend.ahold_all, names)
            held.append((backend, names))
    except BaseException:
        release(held)
        raise
    return held


def release(held: HeldNames) -> None:
    """Ends :func:`hold`, once the members have joined. Never waits."""
    for backend, names in held:
        for name in names:
            backend.release(name)


def _by_backend(groups: Iterable[Group]) -> HeldNames:
    names: dict[str, list[str]] = {}
    for group in groups:
        names.setdefault(group.using, []).append(group.name)
    return [(backends.backend(alias), found) for alias, found in names.items()]
