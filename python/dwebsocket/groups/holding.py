"""Holding several groups at once: their messages come to this process, also without members."""

from __future__ import annotations

from typing import TYPE_CHECKING

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
    names: dict[str, list[str]] = {}
    for group in groups:
        names.setdefault(group.using, []).append(group.name)
    held: HeldNames = []
    try:
        for alias, found in names.items():
            backend = backends.backend(alias)
            yield from backend.holding_all(found)
            held.append((backend, found))
    except BaseException:
        release(held)
        raise
    return held


def release(held: HeldNames) -> None:
    """Ends :func:`hold`, once the members have joined. Never waits."""
    for backend, names in held:
        for name in names:
            backend.release(name)
