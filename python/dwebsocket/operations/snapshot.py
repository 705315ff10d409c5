"""The statistics of one process, and the sum of several."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar, cast

from django.core.exceptions import ImproperlyConfigured

from dwebsocket import _core
from dwebsocket.groups import group_statistics
from dwebsocket.telemetry import durations, tally
from dwebsocket.telemetry.records import event_counts

if TYPE_CHECKING:
    from dwebsocket.telemetry.durations import Durations

T = TypeVar("T")

_IN_AND_OUT = ("in", "out")
_NO_SUMS = ("lag", "history")


class Open(TypedDict):
    """Open WebSockets by their view, by their transport, and by the part that drives them."""

    total: int
    signed_in: int
    views: dict[str, int]
    transports: dict[str, int]
    driven_by: dict[str, int]


class Queued(TypedDict):
    """The messages that wait now: for views, and for clients."""

    inbox_messages: int
    inbox_bytes: int
    outbox_bytes: int
    buffered_bytes: int


class Statistics(TypedDict):
    """Counters and present values, of one process or the sums of several."""

    open: Open
    opened: dict[str, int]
    refused: dict[str, dict[str, int]]
    closed: dict[str, dict[str, int]]
    handed_over: dict[str, int]
    messages: dict[str, int]
    bytes: dict[str, int]
    queued: Queued
    pings: Durations
    handlers: Durations
    events: dict[str, dict[str, int]]
    groups: dict[str, dict[str, Any]]


def of_process() -> Statistics:
    """Returns the statistics of this process: see :func:`dwebsocket.statistics`."""
    opened, refused, closed = tally.counts()
    _, totals, latencies = _core.overview()
    views: Counter[str] = Counter()
    transports: Counter[str] = Counter()
    driven_by: Counter[str] = Counter()
    signed_in = 0
    for websocket, view, _ in tally.open_websockets():
        connection = websocket._connection
        if connection.ended_for() is None:
            views[view] += 1
            transports[websocket._transport] += 1
            driven_by["server" if connection.is_carried else "engine"] += 1
            signed_in += websocket._visitor_names[0] != ""
    return {
        "open": {
            "total": views.total(),
            "signed_in": signed_in,
            "views": dict(views),
            "transports": dict(transports),
            "driven_by": dict(driven_by),
        },
        "opened": opened,
        "refused": _text_keys(refused),
        "closed": _text_keys(closed),
        "handed_over": tally.handovers(),
        "messages": dict(zip(_IN_AND_OUT, totals[:2], strict=True)),
        "bytes": dict(zip(_IN_AND_OUT, totals[2:4], strict=True)),
        "queued": {
            "inbox_messages": totals[4],
            "inbox_bytes": totals[5],
            "outbox_bytes": totals[6],
            "buffered_bytes": _core.buffered_bytes(),
        },
        "pings": durations.summary(latencies),
        "handlers": durations.of_handlers.durations(),
        "events": {event: _text_keys(counts) for event, counts in event_counts().items() if counts},
        "groups": of_groups(),
    }


def of_groups() -> dict[str, dict[str, Any]]:
    """Returns what each backend of groups has done in this process; none with invalid settings."""
    try:
        return {alias: {**counts} for alias, counts in group_statistics().items()}
    except ImproperlyConfigured:
        # The system checks report it.
        return {}


def _text_keys(counts: dict[int, T]) -> dict[str, T]:
    return {str(code): value for code, value in sorted(counts.items())}


def total(parts: list[Statistics]) -> Statistics:
    """Returns the sum of the statistics of several processes; zeros for none."""
    return cast("Statistics", _sum([_NOTHING, *map(_without_lag, parts)]))


def _without_lag(part: Statistics) -> Statistics:
    """Without what is no sum: processes of one machine may share what is kept of groups."""
    groups = {
        alias: {name: value for name, value in counts.items() if name not in _NO_SUMS}
        for alias, counts in part["groups"].items()
    }
    return {**part, "groups": groups}


def _sum(parts: list[Any]) -> Any:
    if not isinstance(parts[0], dict):
        return sum(parts)
    names = dict.fromkeys(name for part in parts for name in part)
    return {name: _sum([part[name] for part in parts if name in part]) for name in names}


_NOTHING: Statistics = {
    "open": {"total": 0, "signed_in": 0, "views": {}, "transports": {}, "driven_by": {}},
    "opened": {},
    "refused": {},
    "closed": {},
    "handed_over": dict.fromkeys((*_IN_AND_OUT, "refused"), 0),
    "messages": dict.fromkeys(_IN_AND_OUT, 0),
    "bytes": dict.fromkeys(_IN_AND_OUT, 0),
    "queued": {"inbox_messages": 0, "inbox_bytes": 0, "outbox_bytes": 0, "buffered_bytes": 0},
    "pings": durations.summary([]),
    "handlers": durations.summary([]),
    "events": {},
    "groups": {},
}
