"""The numbers of messages that this process has published and delivered, for metrics."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, TypedDict

from dwebsocket import conf
from dwebsocket.groups import backends

if TYPE_CHECKING:
    from dwebsocket.groups.backends.contract import Backend


class Dropped(TypedDict):
    """Messages that members have missed, by the reason: the policy ``SLOW``, or their bytes."""

    drop_newest: int
    drop_oldest: int
    latest: int
    unreadable: int


class HistoryStatistics(TypedDict):
    """The size of the history, and how many messages ``WEBSOCKET_MAX_HISTORY`` has cost."""

    bytes: int
    evicted: int


class GroupStatistics(TypedDict):
    """The counters of one backend in this process. All but ``lag`` and ``bytes`` only grow."""

    published: int
    failed: int
    delivered: int
    dropped: Dropped
    closed: int
    lost: int
    regained: int
    restarted: int
    apart: int
    lag: float | None
    history: HistoryStatistics | None


def group_statistics() -> dict[str, GroupStatistics]:
    """
    Returns what each backend of groups has done in this process, by its alias.

    Never waits, and opens nothing: a backend that was not used yet is there with zeros. Any thread,
    task and green thread may call it; in a forked child all begin anew.

    Returns:
        For each alias of ``WEBSOCKET_GROUPS``: the messages ``published``, of which ``failed`` with
        ``GroupUnavailable``; those ``delivered`` to members of this process, and ``dropped`` by the
        reason; the members ``closed`` because they were slow; how often the server was ``lost`` and
        ``regained``; how often a part that serves the groups failed and was ``restarted``; the
        messages that processes of the site on this machine did not hear because
        they are ``apart``, in another folder of the local backend; the ``lag`` in seconds, None
        where there is none; and of the ``history`` the ``bytes`` that are kept, and how many
        messages were ``evicted`` because these were too many: None where a server keeps it, or
        nothing is kept yet.

    Raises:
        django.core.exceptions.ImproperlyConfigured: The settings are invalid.
    """
    return {alias: _of(backends.made(alias)) for alias in conf.get("GROUPS")}


def _of(backend: Backend | None) -> GroupStatistics:
    groups = None if backend is None else backend._groups
    usage = None if backend is None else backend.history_usage
    counts = Counter({} if groups is None else groups.statistics())
    return {
        "published": counts["published"],
        "failed": counts["failed"],
        "delivered": counts["delivered"],
        "dropped": {
            "drop_newest": counts["dropped_newest"],
            "drop_oldest": counts["dropped_oldest"],
            "latest": counts["dropped_for_latest"],
            "unreadable": counts["unreadable"],
        },
        "closed": counts["closed"],
        "lost": counts["lost"],
        "regained": counts["regained"],
        "restarted": counts["restarted"],
        "apart": 0 if backend is None else backend.apart,
        "lag": None if backend is None else backend.lag,
        "history": None if usage is None else {"bytes": usage[0], "evicted": usage[1]},
    }
