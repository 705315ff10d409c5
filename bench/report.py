"""Figures into tables: medians with their range, and ratios within the run."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

import goals

if TYPE_CHECKING:
    from work import Work


@dataclass(frozen=True)
class Table:
    """One figure of every row; ``more_is_better`` decides which way ratios are taken."""

    title: str
    key: str
    more_is_better: bool
    mode: str = "echo"


TABLES = (
    Table("Echo: messages a second", "messages_per_s", more_is_better=True),
    Table("Echo: server CPU, µs a message", "server_cpu_us", more_is_better=False),
    Table("Echo: latency p50, µs", "p50_us", more_is_better=False),
    Table("Echo: latency p99, µs", "p99_us", more_is_better=False),
    Table("Fan-out: deliveries a second", "messages_per_s", more_is_better=True, mode="chat"),
    Table("Fan-out: server CPU, µs a delivery", "server_cpu_us", more_is_better=False, mode="chat"),
    Table("Fan-out: delay p99, µs", "p99_us", more_is_better=False, mode="chat"),
    Table("Opening: handshakes a second", "handshakes_per_s", more_is_better=True, mode="opening"),
    Table(
        "Opening: server CPU, µs a handshake", "server_cpu_us", more_is_better=False, mode="opening"
    ),
    Table("Idle: KiB a connection, nothing sent", "idle_kib", more_is_better=False, mode="idle"),
    Table(
        "Idle: KiB a connection, after one echo of 32 B",
        "echoed_kib",
        more_is_better=False,
        mode="idle",
    ),
    Table(
        "Idle: KiB a connection, after one echo of 64 KiB",
        "echoed_large_kib",
        more_is_better=False,
        mode="idle",
    ),
    Table(
        "Idle: KiB a connection, after that and one more of 32 B",
        "rested_kib",
        more_is_better=False,
        mode="idle",
    ),
)

LEGEND = (
    "Medians of {windows} windows, of memory {repetitions} (least to most); bold: how many times "
    "better than {baseline} in this run. "
    "`L`: the load generator's core was full, so compare CPU, not rates. "
    "`!`: other work ran on these cores, also on the second try. "
    "`failed`: the server lost or spoilt messages; the cause stands below."
)


def markdown(run: dict[str, Any], works: list[Work]) -> str:
    """Return the whole report of ``run`` (see ``run.py`` for its keys)."""
    sections = [_head(run)]
    for table in TABLES:
        rows = [work for work in works if work.mode == table.mode]
        if rows:
            sections.append(_table(table, rows, run))
    sections.append(goals.markdown(run["figures"]))
    stopped = _stopped(run)
    if stopped:
        sections.append(stopped)
    counts = {"windows": windows(run), "repetitions": run["repetitions"]}
    sections.append(LEGEND.format(**counts, baseline=run["baseline"]))
    failures = [
        f"- {row['subject']}, {row['work']}: {row['failed']}"
        for row in run["figures"]
        if row["failed"]
    ]
    if failures:
        sections.append("\n".join(["Failures:", "", *failures]))
    said = _said(run)
    if said:
        sections.append(said)
    left_out = [f"- {name}: {why}" for name, why in run.get("left_out", {}).items()]
    if left_out:
        sections.append("\n".join(["Left out:", "", *left_out]))
    return "\n\n".join(sections) + "\n"


def windows(run: dict[str, Any]) -> int:
    """Return how many windows each row and subject had; memory has one in each repetition."""
    return run["repetitions"] * run.get("turns", 1)


def _stopped(run: dict[str, Any]) -> str:
    """Return the outcome for the clients that read nothing, in the last repetition."""
    fates = {
        (row["subject"], row["work"]): row["stopped"]
        for row in run["figures"]
        if row.get("stopped") is not None
    }
    lines = [
        f"- {subject}, {work}: {fate['stuck']} made the server wait, {fate['cut_off']} were cut off"
        for (subject, work), fate in fates.items()
    ]
    return "\n".join(["Stopped readers:", "", *lines]) if lines else ""


def _said(run: dict[str, Any]) -> str:
    """Return the last line of each server's output; none of it is a lost message."""
    said: dict[tuple[str, str], list[str]] = {}
    for row in run["figures"]:
        if row["server_said"]:
            place = row["subject"], row["server_said"].splitlines()[-1]
            said.setdefault(place, []).append(row["work"])
    lines = [
        f"- {subject}: `{line}` ({', '.join(dict.fromkeys(works))})"
        for (subject, line), works in said.items()
    ]
    title = "The last line of each server's output (failures or not):"
    return "\n".join([title, "", *lines]) if lines else ""


def _head(run: dict[str, Any]) -> str:
    machine = ", ".join(f"{key} {value}" for key, value in run["machine"].items())
    lines = [
        f"# Benchmark of {run['date']}",
        "",
        f"- command: `{run['command']}`",
        f"- commit: {run['commit']}",
        f"- machine: {machine}; server on core {run['server_core']}, load on {run['load_core']}",
        f"- every byte compared; warm-up {run['warm_up_s']} s, measured {run['duration_s']} s, "
        f"repetitions {run['repetitions']}, turns of each {run.get('turns', 1)}",
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
