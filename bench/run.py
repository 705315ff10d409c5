"""
Measure dwebsocket2 beside its peers, in one run: ``python3 bench/run.py`` (``--help``).

Builds what is missing, measures every row on a fresh server for every subject in rotating order,
prints tables. ``QUICK=1`` in the environment takes one short repetition. See README.md.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import signal
import sys
from datetime import date
from pathlib import Path

import build
import machine
import report
from machine import BenchError
from measure import Bench, Work
from subject import BASELINE, DWEBSOCKET2, OURS, SUBJECTS, Subject, compared

RECORD = build.BENCH / "record"
IDLE_CONNECTIONS = 5000
MIB = 2**20
# Open files of a server beside its connections; descriptors in passing while it accepts.
SPARE_DESCRIPTORS = 500


def works(idle_connections: int) -> list[Work]:
    """Return the rows of the benchmark."""
    # Chat lines are text, large things are not; that also spares slow UTF-8 checks the blame.
    small = [Work(count, 32, in_flight) for in_flight in (1, 16) for count in (1, 50, 1000)]
    large = [Work(count, MIB, kind="binary") for count in (1, 50)]
    return [*small, *large, Work(idle_connections)]


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
    quick = os.environ.get("QUICK", "") not in ("", "0")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    add = parser.add_argument
    names = ",".join(subject.name for subject in SUBJECTS)
    add("--subjects", default=names, metavar="A,B", help=f"default: {names}")
    add("--only", default="", metavar="TEXT", help="rows whose name holds TEXT, as 'echo 32 B'")
    add("--repetitions", type=int, default=1 if quick else 3)
    add("--warm-up", type=float, default=0.3 if quick else 1.0, metavar="S")
    add("--duration", type=float, default=1.0 if quick else 4.0, metavar="S")
    add("--idle-connections", type=int, default=IDLE_CONNECTIONS, metavar="N")
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
        help="also write record/<date>-NAME.md and .json (default: named after the processor)",
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
    rows = [work for work in works(options.idle_connections) if options.only in work.name]
    if not rows:
        known = ", ".join(work.name for work in works(options.idle_connections))
        raise BenchError(f"no row holds {options.only!r}; there are: {known}")
    if options.repetitions < 1 or options.duration <= 0 or options.idle_connections < 1:
        raise BenchError("repetitions, duration and idle connections must be positive")
    if not sys.platform.startswith("linux"):
        raise BenchError("the benchmark reads procfs and pins to cores: it needs Linux")
    machine.need_program("taskset", "it is part of util-linux")
    machine.check_cores((options.server_core, options.load_core))
    machine.raise_descriptor_limit(max(work.connections for work in rows) + SPARE_DESCRIPTORS)

    bench = Bench(
        load=build.load_generator(),
        warm_up_s=options.warm_up,
        duration_s=options.duration,
        server_core=options.server_core,
        load_core=options.load_core,
    )
    programs = programs_of(subjects, options.dwebsocket_python)
    result = {
        "date": date.today().isoformat(),
        "command": command(),
        "commit": machine.commit(build.ROOT, (*build.SOURCES, "bench", ":!bench/record")),
        "machine": machine.describe(),
        "warm_up_s": options.warm_up,
        "duration_s": options.duration,
        "repetitions": options.repetitions,
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
        "figures": measure_all(bench, rows, subjects, programs, options.repetitions),
    }
    text = report.markdown(result, rows)
    print(f"\n{text}")
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
    """Return what runs each subject (an interpreter, mostly), after making what is missing."""
    programs = {}
    for subject in subjects:
        if subject.runs_on == "rust":
            programs[subject.name] = build.limit()
        elif subject.runs_on == "original":
            programs[subject.name] = build.original_environment()
        elif subject.distributions == OURS and given is not None:
            # Not resolved: the link is what makes it the interpreter of its environment.
            programs[subject.name] = given.absolute()
        else:
            programs[subject.name] = build.environment()
            if subject.distributions == OURS:
                build.install_checkout(programs[subject.name])
    return programs


def versions(subject: Subject, program: Path) -> dict[str, str]:
    """Return the versions of what the subject consists of."""
    if subject.runs_on == "rust":
        return machine.crates(build.LIMIT / "Cargo.lock", subject.distributions)
    return machine.versions(program, subject.distributions)


def measure_all(
    bench: Bench,
    rows: list[Work],
    subjects: list[Subject],
    programs: dict[str, Path],
    repetitions: int,
) -> list[dict[str, object]]:
    """Measure every row with every subject, interleaved; each turn begins with another one."""
    figures = []
    for repetition in range(repetitions):
        for turn, work in enumerate(rows, repetition):
            shift = turn % len(subjects)
            for subject in subjects[shift:] + subjects[:shift]:
                found = bench.measure(work, subject, programs[subject.name])
                row = {"repetition": repetition, "work": work.name, "subject": subject.name}
                figures.append(row | found)
                print(progress(row | found), file=sys.stderr, flush=True)
    return figures


def progress(row: dict[str, object]) -> str:
    """Return one line about one measurement."""
    keys = ("messages_per_s", "server_cpu_us", "p50_us", "p99_us", "idle_kib", "echoed_kib")
    shown = [f"{key} {row[key]:,.4g}" for key in keys if key in row]
    shares = [
        f"{key} {row[f'{key}_share']:.0%}"
        for key in ("load_cpu", "load_wait", "others")
        if f"{key}_share" in row
    ]
    failed = f" FAILED: {row['failed']}" if row["failed"] else ""
    place = f"[{row['repetition'] + 1}] {row['work']:<20} {row['subject']:<16}"
    return f"{place} {', '.join([*shown, *shares])}{failed}"


def command() -> str:
    """Return the command that would run this again."""
    quick = "QUICK=1 " if os.environ.get("QUICK", "") not in ("", "0") else ""
    return f"{quick}python3 bench/run.py {shlex.join(sys.argv[1:])}".strip()


def record(result: dict[str, object], text: str, name: str) -> None:
    """Write the report and all single figures into the folder of records."""
    # The machine's kind, not its name.
    name = name or f"{os.cpu_count()}-core-{machine.processor()}"
    name = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    RECORD.mkdir(exist_ok=True)
    path = RECORD / f"{result['date']}-{name}.md"
    path.write_text(text)
    path.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")
    print(f"recorded in {path} and .json")


if __name__ == "__main__":
    sys.exit(main())
