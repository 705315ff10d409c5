"""
Measure dwebsocket2 beside its peers, in one run: ``python3 bench/run.py`` (``--help``).

Builds missing parts, measures every row on fresh servers of all subjects in turns, and prints
tables. ``QUICK=1`` in the environment takes one short repetition of the main rows and subjects,
``GOALS=1`` only the rows with goals. See README.md.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import signal
import subprocess
import sys
from contextlib import nullcontext
from dataclasses import replace
from datetime import date
from pathlib import Path

import build
import charts
import goals
import machine
import redis_server
import report
from machine import BenchError
from measure import Bench
from subject import BASELINE, DWEBSOCKET2, OURS, SUBJECTS, Subject, compared
from work import Work

RECORD = build.BENCH / "record"
# The last run, whatever it was.
LATEST = build.CACHE / "bench-latest.md"
KIB, MIB = 2**10, 2**20
# Open files of a server beside its connections; descriptors in passing while it accepts.
SPARE_DESCRIPTORS = 500


def works(idle_connections: int) -> list[Work]:
    """Return the rows of the benchmark."""
    # Chat lines are text, large things are not; that also spares slow UTF-8 checks the blame.
    small = [Work(count, 32, in_flight) for in_flight in (1, 16) for count in (1, 50, 1000)]
    large = [Work(50, KIB), goals.KIB_64, Work(1, MIB, kind="binary"), goals.ECHO_MIB]
    many = [goals.MANY, goals.BUSY, goals.BUSY_AND_STOPPED]
    chats = [goals.CHAT, goals.GROUP, goals.GROUP_SLOWLY]
    rest = [*chats, goals.OPENING, replace(goals.IDLE, connections=idle_connections)]
    return [*small, *large, *many, *rest]


# The short run: the best-known subjects and rows.
QUICK_SUBJECTS = (
    *("dwebsocket2", "dwebsocket2-async", "original", "channels-uvicorn", "channels-daphne"),
    *("websockets", "tokio-tungstenite"),
)
QUICK_WORKS = (goals.ONE, goals.ECHO, goals.BURST, goals.ECHO_MIB, goals.CHAT, goals.OPENING)
QUICK_IDLE_CONNECTIONS = 1000


def main() -> int:
    """Run the command line; returns the exit status (1: a server failed, 2: no measurement)."""
    # Ended by the runner of a pipeline: as with Ctrl-C, no server may stay behind.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return run(arguments())
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
    except KeyboardInterrupt:
        print("bench: interrupted; no figures", file=sys.stderr)
    return 2


def arguments() -> argparse.Namespace:
    """Read the command line."""
    quick, only_goals = asked_for("QUICK"), asked_for("GOALS")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    add = parser.add_argument
    quick_run = quick and not only_goals
    names = ",".join(QUICK_SUBJECTS if quick_run else [subject.name for subject in SUBJECTS])
    idle = QUICK_IDLE_CONNECTIONS if quick_run else goals.IDLE_CONNECTIONS
    add("--goals", action="store_true", default=only_goals, help="only the rows with goals")
    add("--subjects", default=names, metavar="A,B", help=f"default: {names}")
    add("--only", default="", metavar="TEXT", help="rows whose name holds TEXT, as 'echo 32 B'")
    add("--repetitions", type=int, default=1 if quick else 3)
    turns = 1 if quick else 3
    add("--turns", type=int, default=turns, help="windows of each server of a repetition")
    add("--warm-up", type=float, default=0.3 if quick else 0.5, metavar="S")
    add("--duration", type=float, default=1.0 if quick else 1.3, metavar="S", help="of a window")
    add("--idle-connections", type=int, default=idle, metavar="N")
    add("--server-core", type=int, default=0)
    add("--load-core", type=int, default=1)
    add(
        "--dwebsocket-python",
        type=Path,
        metavar="PATH",
        help="interpreter that has dwebsocket2, Django and gunicorn, instead of building a wheel",
    )
    add(
        "--compare",
        type=Path,
        metavar="FOLDER",
        help="also measure the built package dwebsocket/ in FOLDER, as `compared`",
    )
    add(
        "--record",
        nargs="?",
        const="",
        metavar="NAME",
        help="also write record/<date>-NAME.md and .json (default: named after the processor) and "
        "the charts in docs/bench/",
    )
    return parser.parse_args()


def run(options: argparse.Namespace) -> int:
    """Measure, print, record."""
    subjects = choose_subjects(options.subjects)
    if options.compare is not None:
        subjects += [
            one
            for one in compared(options.compare.absolute())
            if one.name.replace("compared", DWEBSOCKET2) in options.subjects.split(",")
        ]
    known_rows = works(options.idle_connections)
    rows = [work for work in known_rows if options.only in work.name]
    if asked_for("QUICK") and not options.goals and not options.only:
        rows = [work for work in rows if work in QUICK_WORKS or work.mode == "idle"]
    if options.goals:
        rows = [work for work in rows if any(work == one for one, _ in goals.pairs())]
    if not rows:
        known = ", ".join(work.name for work in known_rows)
        raise BenchError(f"no row holds {options.only!r}; there are: {known}")
    counts = (options.repetitions, options.turns, options.idle_connections)
    if min(counts) < 1 or options.duration <= 0:
        raise BenchError("repetitions, turns, duration and idle connections must be positive")
    if options.goals and options.idle_connections != goals.IDLE_CONNECTIONS:
        raise BenchError(f"the goals are for {goals.IDLE_CONNECTIONS} idle connections")
    if not sys.platform.startswith("linux"):
        raise BenchError("the benchmark reads procfs and pins to cores: it needs Linux")
    machine.need_program("taskset", "it is part of util-linux")
    machine.check_cores((options.server_core, options.load_core))
    machine.raise_descriptor_limit(
        max(work.connections + work.stopped for work in rows) + SPARE_DESCRIPTORS
    )

    bench = Bench(
        load=build.load_generator(),
        warm_up_s=options.warm_up,
        duration_s=options.duration,
        server_core=options.server_core,
        load_core=options.load_core,
    )
    if options.goals:
        wanted = {name for work, name in goals.pairs() if work in rows}
        subjects = [one for one in subjects if original_name(one) in wanted]
    programs = programs_of(subjects, options.dwebsocket_python)
    left_out = {one.name: reason for one in subjects if (reason := lacks(one, programs[one.name]))}
    for name, reason in left_out.items():
        print(f"bench: {name} is left out: {reason}", file=sys.stderr)
    subjects = [one for one in subjects if one.name not in left_out]
    pairs = [
        (work, one)
        for work in rows
        for one in subjects
        if one.path(work) is not None
        and (not options.goals or (work, original_name(one)) in goals.pairs())
    ]
    if not pairs:
        raise BenchError("no subject is left that any of these rows is for")
    result = {
        "date": date.today().isoformat(),
        "command": command(),
        "commit": machine.commit(build.ROOT, (*build.SOURCES, "bench", ":!bench/record")),
        "machine": machine.describe(),
        "warm_up_s": options.warm_up,
        "duration_s": options.duration,
        "repetitions": options.repetitions,
        "turns": options.turns,
        "server_core": options.server_core,
        "load_core": options.load_core,
        "baseline": BASELINE,
        "subjects": {
            one.name: {
                "says": one.says,
                "versions": versions(one, programs[one.name]),
            }
            for one in subjects
        },
        "left_out": left_out,
    }
    with redis_server.running(options.load_core) if needs_redis(subjects) else nullcontext():
        result["figures"] = measure_all(bench, pairs, programs, options.repetitions, options.turns)
    text = report.markdown(result, rows)
    print(f"\n{text}")
    write(result, text, LATEST)
    if options.record is not None:
        record(result, text, options.record)
    return int(any(row["failed"] for row in result["figures"]))


def choose_subjects(names: str) -> list[Subject]:
    """Return the subjects with these names, in the order of the tables."""
    wanted = names.split(",")
    unknown = set(wanted) - {subject.name for subject in SUBJECTS}
    if unknown:
        known = ", ".join(subject.name for subject in SUBJECTS)
        raise BenchError(f"no subject {', '.join(sorted(unknown))}; there are: {known}")
    return [subject for subject in SUBJECTS if subject.name in wanted]


def programs_of(subjects: list[Subject], given: Path | None) -> dict[str, Path]:
    """Return the program of each subject (an interpreter, mostly); builds missing ones."""
    programs = {}
    for subject in subjects:
        if subject.runs_on == "rust":
            programs[subject.name] = build.limit()
        elif subject.runs_on == "original":
            programs[subject.name] = build.original_environment()
        elif is_ours(subject) and given is not None:
            # Not resolved: only by its link it is the interpreter of its environment.
            programs[subject.name] = given.absolute()
        else:
            programs[subject.name] = build.environment()
            if is_ours(subject):
                build.install_checkout(programs[subject.name])
    return programs


def is_ours(subject: Subject) -> bool:
    """Return whether it is of this checkout."""
    return subject.distributions[: len(OURS)] == OURS


def versions(subject: Subject, program: Path) -> dict[str, str]:
    """Return the versions of the packages that the subject consists of."""
    if subject.runs_on == "rust":
        return machine.crates(build.LIMIT / "Cargo.lock", subject.distributions)
    return machine.versions(program, subject.distributions)


def needs_redis(subjects: list[Subject]) -> bool:
    """Return whether one of them has its messages carried by Redis."""
    layers = {subject.environment.get("BENCH_LAYER", "") for subject in subjects}
    return any(layer.startswith("redis") for layer in layers)


def lacks(subject: Subject, program: Path) -> str | None:
    """Return the step that is needed before the subject can run, or None."""
    if needs_redis([subject]) and not redis_server.is_here():
        return "it needs redis-server (Debian: apt-get install redis-server)"
    if subject.needs is None:
        return None
    module, remedy = subject.needs
    tried = subprocess.run([str(program), "-c", f"import {module}"], capture_output=True)
    return remedy if tried.returncode else None


def original_name(subject: Subject) -> str:
    """Return the name of the subject that this is, or is compared with by ``--compare``."""
    return subject.name.replace("compared", DWEBSOCKET2)


def asked_for(name: str) -> bool:
    """Return whether the environment asks for a kind of run."""
    return os.environ.get(name, "") not in ("", "0")


def measure_all(
    bench: Bench,
    pairs: list[tuple[Work, Subject]],
    programs: dict[str, Path],
    repetitions: int,
    turns: int,
) -> list[dict[str, object]]:
    """Measure every row with its subjects, interleaved; each repetition has fresh servers."""
    figures = []
    rows = list(dict.fromkeys(work for work, _ in pairs))
    for repetition in range(repetitions):
        for first, work in enumerate(rows, repetition):
            subjects = [one for row, one in pairs if row == work]
            shift = first % len(subjects)
            subjects = subjects[shift:] + subjects[:shift]
            for turn, subject, found in bench.measure(work, subjects, programs, turns):
                row = {"repetition": repetition, "turn": turn, "work": work.name}
                row |= {"subject": subject.name, **found}
                figures.append(row)
                print(progress(row), file=sys.stderr, flush=True)
    return figures


def progress(row: dict[str, object]) -> str:
    """Return one line about one measurement."""
    keys = ("messages_per_s", "server_cpu_us", "p50_us", "p99_us")
    keys += ("handshakes_per_s", "idle_kib", "echoed_kib", "echoed_large_kib", "rested_kib")
    shown = [f"{key} {row[key]:,.4g}" for key in keys if key in row]
    shares = [
        f"{key} {row[f'{key}_share']:.0%}"
        for key in ("load_cpu", "load_wait", "others")
        if f"{key}_share" in row
    ]
    failed = f" FAILED: {row['failed']}" if row["failed"] else ""
    number = f"{row['repetition'] + 1}.{row['turn'] + 1}"
    place = f"[{number}] {row['work']:<20} {row['subject']:<16}"
    return f"{place} {', '.join([*shown, *shares])}{failed}"


def command() -> str:
    """Return the command that would run this again."""
    asked = "".join(f"{name}=1 " for name in ("QUICK", "GOALS") if asked_for(name))
    return f"{asked}python3 bench/run.py {shlex.join(sys.argv[1:])}".strip()


def record(result: dict[str, object], text: str, name: str) -> None:
    """Write the report and all single figures into the folder of records, and draw the charts."""
    # The machine's kind, not its name.
    name = name or f"{os.cpu_count()}-core-{machine.processor()}"
    name = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    path = RECORD / f"{result['date']}-{name}.md"
    write(result, text, path)
    print(f"recorded in {path} and .json")
    drawn = charts.write(result)
    print(f"drawn: {', '.join(str(path) for path in drawn)}")


def write(result: dict[str, object], text: str, path: Path) -> None:
    """Write the report to ``path`` and the figures beside it, as JSON."""
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    path.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
