"""
The cost of a `WebSocketHandler`, beside an async view: ``python bench/handlers.py`` (``--help``).

Starts gunicorn gthread with one worker on one core. First it opens idle connections, as many as
the limit of open files allows, 19,000 at most, and says how much PSS each takes, with a handler, an
async view, and the bare engine. Then fifty clients echo small messages, and it gives the server's
CPU for each of them. Needs the packages of tests/requirements.txt, a built engine beside the
Python sources, and Rust for the load generator. Linux only.
"""

from __future__ import annotations

import argparse
import json
import resource
import signal
import statistics
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import build
import machine
from measure import Bench
from subject import ECHOES, SUBJECTS, Subject
from work import Work

import table

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parent.parent
IDLE_CONNECTIONS = 19_000
SPARE_DESCRIPTORS = 256
CLIENTS = 50
# The goals.
HANDLER_KIB, TIMES = 3.5, 1.15
VIEW = "async view"
HANDLERS = ("handler", "async handler")


def subjects() -> list[Subject]:
    """Return the subjects, on the interpreter and the sources that run this."""
    (engine,) = (one for one in SUBJECTS if one.name == "dwebsocket2-engine")
    (view,) = (one for one in SUBJECTS if one.name == "dwebsocket2-async")
    found = [replace(engine, name="engine"), replace(view, name=VIEW)]
    for name in HANDLERS:
        path = f"/{name.replace(' ', '-')}"
        found.append(replace(view, name=name, paths=dict.fromkeys(ECHOES, path)))
    return [replace(one, python_path=ROOT / "python") for one in found]


@dataclass
class Row:
    """One way to serve a connection: medians."""

    name: str
    idle_kib: float
    echoed_kib: float
    rested_kib: float
    #: Of each message; None for the engine, which has no view.
    cpu_us: float | None
    failed: list[str]


def measure(bench: Bench, idle: int, repetitions: int, turns: int) -> Iterator[Row]:
    """Measure all; the windows of the echoes take turns."""
    everything = subjects()
    programs = dict.fromkeys((one.name for one in everything), Path(sys.executable))
    figures: dict[str, list[dict[str, Any]]] = {one.name: [] for one in everything}
    for _ in range(repetitions):
        for work in (Work(idle, mode="idle"), Work(CLIENTS)):
            chosen = [one for one in everything if one.path(work) is not None]
            for _, subject, found in bench.measure(work, chosen, programs, turns):
                figures[subject.name].append(found)
                shown = {name: value for name, value in found.items() if value}
                print(work.name, subject.name, json.dumps(shown), file=sys.stderr, flush=True)
    for name, found in figures.items():
        yield Row(
            name,
            *(_median(found, kind) for kind in ("idle_kib", "echoed_kib", "rested_kib")),
            _median(found, "server_cpu_us") if name != "engine" else None,
            [one["failed"] for one in found if one["failed"]],
        )


def _median(figures: list[dict[str, Any]], name: str) -> float:
    values = [one[name] for one in figures if name in one and not one["failed"]]
    return statistics.median(values) if values else float("nan")


def verdict(row: Row, rows: list[Row]) -> str:
    """Say whether the goals are reached."""
    if row.failed:
        return f"FAILED: {row.failed[0]}"
    if row.name not in HANDLERS or row.cpu_us is None:
        return ""
    (view,) = (one for one in rows if one.name == VIEW)
    times = row.cpu_us / (view.cpu_us or float("nan"))
    holds = row.idle_kib < HANDLER_KIB and times <= TIMES
    return f"{'holds' if holds else 'MISSED'} ({times:.2f} times the view's CPU)"


def lines(rows: list[Row]) -> Iterator[str]:
    """Make the lines of the table."""
    yield "| behind the connection | idle, KiB | after an echo | after a rest | CPU, µs | goal |"
    yield "|---|---|---|---|---|---|"
    for row in rows:
        cpu = "-" if row.cpu_us is None else f"{row.cpu_us:.2f}"
        yield (
            f"| {row.name} | {row.idle_kib:.2f} | {row.echoed_kib:.2f} | {row.rested_kib:.2f} "
            f"| {cpu} | {verdict(row, rows)} |"
        )


def main() -> int:
    """Measure the chosen parts; 1 when a goal is missed, 2 when nothing could be measured."""
    # Ended by the runner of a pipeline: as with Ctrl-C, no server may stay behind.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    add = parser.add_argument
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    most = IDLE_CONNECTIONS if hard < 0 else min(IDLE_CONNECTIONS, hard - SPARE_DESCRIPTORS)
    add("--idle-connections", type=int, default=most, metavar="N")
    add("--repetitions", type=int, default=3)
    add("--turns", type=int, default=5, help="windows of each server of a repetition")
    add("--warm-up", type=float, default=0.5, metavar="S")
    add("--duration", type=float, default=2.0, metavar="S", help="of a window")
    table.add_options(parser)
    asked = parser.parse_args()
    try:
        machine.need_program("taskset", "it is part of util-linux")
        machine.check_cores((asked.server_core, asked.load_core))
        machine.raise_descriptor_limit(asked.idle_connections + SPARE_DESCRIPTORS)
        bench = Bench(
            load=build.load_generator(),
            warm_up_s=asked.warm_up,
            duration_s=asked.duration,
            server_core=asked.server_core,
            load_core=asked.load_core,
        )
        rows = list(measure(bench, asked.idle_connections, asked.repetitions, asked.turns))
    except machine.BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    how = (
        f"gunicorn gthread with one worker on one core; {asked.idle_connections:,} idle "
        f"connections, PSS of each; {CLIENTS} clients that echo 32 B. The goals: a handler below "
        f"{HANDLER_KIB} KiB, its echo within {TIMES} times an async view's CPU."
    )
    found = {"idle_connections": asked.idle_connections, "duration_s": asked.duration}
    found |= {"repetitions": asked.repetitions, "turns": asked.turns}
    found |= {"figures": [row.__dict__ | {"verdict": verdict(row, rows)} for row in rows]}
    table.publish("The cost of a handler", how, lines(rows), found, asked.record)
    return int(any(word in verdict(row, rows) for row in rows for word in ("MISSED", "FAILED")))


if __name__ == "__main__":
    sys.exit(main())
