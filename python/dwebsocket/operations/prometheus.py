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

from dwebsocket.operations.snapshot import total
from dwebsocket.operations.survey import site_statistics

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client.core import Metric

    from dwebsocket.operations.snapshot import Statistics
    from dwebsocket.operations.survey import SiteStatistics

# For each metric: the family, its name, its help, its labels after that of the process.
_METRICS: tuple[tuple[Any, str, str, tuple[str, ...]], ...] = (
    (GaugeMetricFamily, "open", "Open WebSockets.", ("view",)),
    (GaugeMetricFamily, "open_by_transport", "Open WebSockets.", ("transport",)),
    (GaugeMetricFamily, "signed_in", "Open WebSockets of users that are signed in.", ()),
    (CounterMetricFamily, "opened", "WebSockets that were opened.", ("view",)),
    (CounterMetricFamily, "refused", "Handshakes that were refused.", ("status", "cause")),
    (CounterMetricFamily, "closed", "WebSockets that have ended.", ("code", "by")),
    (CounterMetricFamily, "handed_over", "Moves between processes.", ("outcome",)),
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


def families(site: SiteStatistics) -> Iterator[Metric]:
    """Returns the metrics of statistics."""
    processes = GaugeMetricFamily(
        "dwebsocket_processes", "Processes of the site.", labels=("state",)
    )
    processes.add_metric(("answered",), len(site["processes"]))
    processes.add_metric(("missing",), site["missing"])
    yield processes
    parts: dict[str, list[Statistics]] = {}
    for process in site["processes"]:
        # Containers with the network of their host have its name, and numbers of their own.
        label = f"{process['host']}:{process['pid']}"
        parts.setdefault(label, []).append(process["statistics"])
    found = [(label, _by_metric(total(each))) for label, each in parts.items()]
    for kind, name, text, labels in _METRICS:
        family = kind(f"dwebsocket_{name}", text, labels=("process", *labels))
        for label, by_metric in found:
            for sample in _samples((label,), by_metric.get(name, {})):
                family.add_metric(*sample)
        yield family
    for kind, name, text, key in _DURATIONS:
        family = kind(f"dwebsocket_{name}", text, labels=("process",))
        for label, by_metric in found:
            counts = by_metric[key]["buckets"]
            sums = map(float, itertools.accumulate(counts.values()))
            buckets = [*zip(counts, sums, strict=True)]
            family.add_metric((label,), buckets, by_metric[key]["seconds"])
        yield family


def _by_metric(statistics: Any) -> dict[str, Any]:
    """Returns what each metric has: a number, or a dictionary of them for each of its labels."""
    opened, queued = statistics["open"], statistics["queued"]
    found = {
        **statistics,
        "open": opened["views"],
        "open_by_transport": opened["transports"],
        "signed_in": opened["signed_in"],
        "queued_bytes": {"inbox": queued["inbox_bytes"], "outbox": queued["outbox_bytes"]},
        "queued_messages": queued["inbox_messages"],
        "buffered_bytes": queued["buffered_bytes"],
    }
    for alias, counts in statistics["groups"].items():
        for name, number in counts.items():
            found.setdefault(f"group_{name}", {})[alias] = number
    return found


def _samples(labels: tuple[str, ...], values: Any) -> Iterator[tuple[tuple[str, ...], float]]:
    if not isinstance(values, dict):
        yield labels, values
        return
    for label, inner in values.items():
        yield from _samples((*labels, label), inner)
