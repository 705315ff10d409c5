"""Figures into tables: medians with their range, and ratios within the run."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from measure import Work


@dataclass(frozen=True)
class Table:
    """One figure of every row; ``more_is_better`` decides which way ratios are taken."""

    title: str
    key: str
    more_is_better: bool
    idle: bool = False


TABLES = (
    Table("Echo: messages a second", "messages_per_s", more_is_better=True),
    Table("Echo: server CPU, µs a message", "server_cpu_us", more_is_better=False),
    Table("Echo: latency p50, µs", "p50_us", more_is_better=False),
    Table("Echo: latency p99, µs", "p99_us", more_is_better=False),
    Table("Idle: KiB a connection, nothing sent", "idle_kib", more_is_better=False, idle=True),
    Table("Idle: KiB a connection, after one echo", "echoed_kib", more_is_better=False, idle=True),
    Table("Opening: handshakes a second", "handshakes_per_s", more_is_better=True, idle=True),
)

LEGEND = (
    "Medians of {repetitions} (least to most); bold: how many times better than {baseline} "
    "in this run. "
    "`L`: the load generator's core was full, so compare CPU, not rates. "
    "`!`: other work ran on these cores, also on the second try. "
    "`failed`: the server lost or spoilt messages; the cause stands below."
)


def markdown(run: dict[str, Any], works: list[Work]) -> str:
    """Return the whole report of ``run`` (see ``run.py`` for its keys)."""
    sections = [_head(run)]
    for table in TABLES:
        rows = [work for work in works if work.is_idle == table.idle]
        if rows:
            sections.append(_table(table, rows, run))
    sections.append(LEGEND.format(repetitions=run["repetitions"], baseline=run["baseline"]))
    for title, key in (("Failures", "failed"), ("What servers wrote", "server_said")):
        lines = [
            f"- {row['subject']}, {row['work']}: {row[key]}" for row in run["figures"] if row[key]
        ]
        if lines:
            sections.append("\n".join([f"{title}:", "", *lines]))
    return "\n\n".join(sections) + "\n"


def _head(run: dict[str, Any]) -> str:
    machine = ", ".join(f"{key} {value}" for key, value in run["machine"].items())
    lines = [
        f"# Benchmark of {run['date']}",
        "",
        f"- command: `{run['command']}`",
        f"- commit: {run['commit']}",
        f"- machine: {machine}; server on core {run['server_core']}, load on {run['load_core']}",
        f"- every byte compared; warm-up {run['warm_up_s']} s, measured {run['duration_s']} s, "
        f"repetitions {run['repetitions']}",
    ]
    for name, subject in run["subjects"].items():
        versions = ", ".join(f"{key} {value}" for key, value in subject["versions"].items())
        lines.append(f"- {name}: {subject['says']} ({versions})")
    return "\n".join(lines)


def _table(table: Table, works: list[Work], run: dict[str, Any]) -> str:
    names = list(run["subjects"])
    lines = [
        f"## {table.title}",
        "",
        f"| | {' | '.join(names)} |",
        "|---" * (len(names) + 1) + "|",
    ]
    for work in works:
        cells = [_cell(table, work, name, run) for name in names]
        lines.append(f"| {work.name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(table: Table, work: Work, name: str, run: dict[str, Any]) -> str:
    rows = _rows(run, work, name)
    if not rows or any(row["failed"] for row in rows):
        return "failed" if rows else "-"
    values = [row[table.key] for row in rows]
    text = _figure(median(values))
    if len(values) > 1:
        text += f" ({_figure(min(values))} to {_figure(max(values))})"
    base = _rows(run, work, run["baseline"])
    if base and name != run["baseline"] and not any(row["failed"] for row in base):
        ours, theirs = median(values), median(row[table.key] for row in base)
        better, worse = (ours, theirs) if table.more_is_better else (theirs, ours)
        if worse > 0:
            text += f" **{better / worse:.3g}x**"
    marks = ("L" if row["limited_by_load"] else "" for row in rows)
    marks = {*marks, *("!" if row["disturbed"] else "" for row in rows)} - {""}
    return " ".join([text, *(f"`{mark}`" for mark in sorted(marks))])


def _rows(run: dict[str, Any], work: Work, name: str) -> list[dict[str, Any]]:
    wanted = (work.name, name)
    return [row for row in run["figures"] if (row["work"], row["subject"]) == wanted]


def _figure(value: float) -> str:
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"
