"""
The statistics of all processes as metrics of Prometheus, for the package ``prometheus-client``.

Each sample has the process that it is from as a label: a counter of a process that has ended stops,
and that of its successor begins at zero, as Prometheus expects it of counters.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any, Literal

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeHistogramMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.registry import Collector

from dwebsocket.operations.survey import site_statistics

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client.core import Metric

    from dwebsocket.operations.survey import SiteStatistics

    # The values of the labels after that of the process, and the sample's value.
    Samples = Iterator[tuple[tuple[str, ...], float]]

# For each metric: the family, its name, its help, its labels after that of the process.
_METRICS: tuple[tuple[Any, str, str, tuple[str, ...]], ...] = (
    (GaugeMetricFamily, "open", "Open WebSockets.", ("view",)),
    (GaugeMetricFamily, "open_by_transport", "Open WebSockets.", ("transport",)),
    (GaugeMetricFamily, "signed_in", "Open WebSockets of users that are signed in.", ()),
    (CounterMetricFamily, "opened", "WebSockets that were opened.", ("view",)),
    (CounterMetricFamily, "refused", "Handshakes that were refused.", ("status", "cause")),
    (CounterMetricFamily, "closed", "WebSockets that have ended.", ("code", "by")),
    (CounterMetricFamily, "messages", "Messages.", ("direction",)),
    (CounterMetricFamily, "bytes", "Bytes on the wire.", ("direction",)),
    (GaugeMetricFamily, "queued_bytes", "Bytes that wait.", ("queue",)),
    (GaugeMetricFamily, "queued_messages", "Messages that wait for views.", ()),
    (GaugeMetricFamily, "buffered_bytes", "Memory of all that is buffered.", ()),
    (CounterMetricFamily, "events", "Events of docs/logging.md.", ("event", "code")),
    (CounterMetricFamily, "group_published", "Messages to groups.", ("backend",)),
    (CounterMetricFamily, "group_failed", "Those that could not be sent.", ("backend",)),
    (CounterMetricFamily, "group_delivered", "Deliveries to members.", ("backend",)),
    (CounterMetricFamily, "group_dropped", "Dropped messages.", ("backend", "reason")),
    (CounterMetricFamily, "group_closed", "Members closed as slow.", ("backend",)),
    (CounterMetricFamily, "group_apart", "Messages that other processes miss.", ("backend",)),
    (CounterMetricFamily, "group_lost", "How often its server was lost.", ("backend",)),
    (CounterMetricFamily, "group_restarted", "Parts that failed and began anew.", ("backend",)),
)
# Likewise for durations, with their key among the statistics.
_DURATIONS: tuple[tuple[Any, str, str, Literal["pings", "handlers"]], ...] = (
    (
        GaugeHistogramMetricFamily,
        "ping_seconds",
        "How long the last answered ping of each open WebSocket took.",
        "pings",
    ),
    (HistogramMetricFamily, "handler_seconds", "How long methods of handlers took.", "handlers"),
)


class SiteCollector(Collector):
    """
    Returns the metrics of the whole site. For a registry of the project's own.

    Register it in one process that is scraped: each scrape asks all the others.
    """

    def collect(self) -> Iterator[Metric]:
        """
        Asks all processes. Not for event loops.

        Raises:
            GroupUnavailable: The default backend of groups cannot be reached.
        """
        return families(site_statistics())


class Collected(Collector):
    """The metrics of statistics that are there already."""

    def __init__(self, site: SiteStatistics) -> None:
        self._site = site

    def collect(self) -> Iterator[Metric]:
        """Returns the metrics."""
        return families(self._site)


def families(site: SiteStatistics) -> Iterator[Metric]:
    """Returns the metrics of statistics."""
    processes = GaugeMetricFamily(
        "dwebsocket_processes", "Processes of the site.", labels=("state",)
    )
    processes.add_metric(("answered",), len(site["processes"]))
    processes.add_metric(("missing",), site["missing"])
    yield processes
    for kind, name, text, labels in _METRICS:
        family = kind(f"dwebsocket_{name}", text, labels=("process", *labels))
        for process in site["processes"]:
            label = f"{process['host']}:{process['pid']}"
            for values, value in _samples(name, process["statistics"]):
                family.add_metric((label, *values), value)
        yield family
    for kind, name, text, key in _DURATIONS:
        family = kind(f"dwebsocket_{name}", text, labels=("process",))
        for process in site["processes"]:
            found: Any = process["statistics"][key]
            sums = itertools.accumulate(found["buckets"].values())
            label = f"{process['host']}:{process['pid']}"
            buckets = [
                (bound, float(number)) for bound, number in zip(found["buckets"], sums, strict=True)
            ]
            family.add_metric((label,), buckets, found["seconds"])
        yield family


def _samples(name: str, statistics: Any) -> Samples:
    queued = statistics["queued"]
    if name == "open":
        yield from _by_one(statistics["open"]["views"])
    elif name == "open_by_transport":
        yield from _by_one(statistics["open"]["transports"])
    elif name == "signed_in":
        yield (), statistics["open"]["signed_in"]
    elif name in ("opened", "messages", "bytes"):
        yield from _by_one(statistics[name])
    elif name in ("refused", "closed", "events"):
        yield from _by_two(statistics[name])
    elif name == "queued_bytes":
        yield from _by_one({"inbox": queued["inbox_bytes"], "outbox": queued["outbox_bytes"]})
    elif name == "queued_messages":
        yield (), queued["inbox_messages"]
    elif name == "buffered_bytes":
        yield (), queued["buffered_bytes"]
    elif name == "group_dropped":
        yield from _by_two({alias: c["dropped"] for alias, c in statistics["groups"].items()})
    else:
        what = name.removeprefix("group_")
        yield from _by_one({alias: c[what] for alias, c in statistics["groups"].items()})


def _by_one(counts: dict[str, float]) -> Samples:
    for label, number in counts.items():
        yield (label,), number


def _by_two(counts: dict[str, dict[str, float]]) -> Samples:
    for first, numbers in counts.items():
        for second, number in numbers.items():
            yield (first, second), number
