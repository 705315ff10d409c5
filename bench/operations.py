"""
The cost of the page about WebSockets for a large site, and the time until it answers.

    python bench/operations.py --record bench/record/DATE-operations

Four workers of gunicorn hold 10,000 idle WebSockets. Timed are loads of the page: as it opens,
sorted, searched, and its last page. Then the workers' processor time is measured in turns, without
a viewer and with one whose charts move. Goals: a page within a second, a viewer below 1 % of a core
for all workers together. Exit status 1 when one is missed. Runs on the interpreter and the built
engine that the tests use; needs `ulimit -Hn` of 15,000.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "operations"))

import machine
from operators import LIVE, PAGE, Person, site

from support.crowd import Crowd

if TYPE_CHECKING:
    from support.raw_peer import RawPeer
    from support.server import Server

WORKERS = 4
AT_ONCE = 200
LOADS = 10
GOAL_S, GOAL_SHARE = 1.0, 0.01
PAGES = {
    "as it opens": "",
    "sorted by messages": "?o=messages_in",
    "searched": "?q=127.1.7",
    "the last page": "?p=200",
}


def cpu_s(server: Server) -> float:
    """Return the processor time of all workers so far."""
    ticks = 0
    for pid in server.workers():
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def share(server: Server, seconds: float, viewer: RawPeer | None = None) -> float:
    """Measure the workers' share of a core, meanwhile reading the viewer's messages."""
    before, began = cpu_s(server), time.monotonic()
    while (left := began + seconds - time.monotonic()) > 0:
        if viewer is None:
            time.sleep(left)
        else:
            viewer.read_message()
    return (cpu_s(server) - before) / (time.monotonic() - began)


def loads_of(person: Person, query: str) -> dict[str, Any]:
    """Load the page some times: the seconds of each, the workers' processor time for it."""
    times: list[float] = []
    incomplete, before = 0, cpu_s(person.server)
    for _ in range(LOADS):
        began = time.monotonic()
        answer = person.get(PAGE + query)
        times.append(time.monotonic() - began)
        assert answer.status == 200, answer
        incomplete += b"did not in time" in answer.body
    cpu = (cpu_s(person.server) - before) / LOADS
    return {"times": times, "cpu": cpu, "incomplete": incomplete}


def measure(count: int, turns: int, seconds: float) -> dict[str, Any]:
    """Do all of it on a site of its own."""
    machine.raise_descriptor_limit(15_000)
    with site(WORKERS, WEBSOCKET_MAX_CONNECTIONS=None) as server:
        root = Person(server, "root")
        with Crowd.of(server, "/feed/1/", count) as crowd:
            assert crowd.sum(f"open {AT_ONCE}", "open") == count
            loads = {name: loads_of(root, query) for name, query in PAGES.items()}
            without, viewed = [], []
            for _ in range(turns):
                without.append(share(server, seconds))
                with root.websocket(LIVE) as viewer:
                    viewed.append(share(server, seconds, viewer))
    load = os.getloadavg()[1]
    return {"count": count, "loads": loads, "without": without, "viewed": viewed, "load": load}


def report(found: dict[str, Any]) -> tuple[str, bool]:
    """Give the tables as text, and whether the goals are met."""
    lines = [
        "# The page about WebSockets in the admin",
        "",
        f"{machine.processor()}, {WORKERS} workers of gunicorn, {found['count']:,} idle WebSockets;"
        f" load {found['load']:.0f} on {os.cpu_count()} cores.",
        "",
        "| page | median, ms | slowest, ms | CPU of all workers, ms | incomplete |",
        "|---|---|---|---|---|",
    ]
    slowest, incomplete = 0.0, 0
    for name, load in found["loads"].items():
        times = load["times"]
        slowest, incomplete = max(slowest, *times), incomplete + load["incomplete"]
        lines.append(
            f"| {name} | {statistics.median(times) * 1e3:.0f} | {max(times) * 1e3:.0f} |"
            f" {load['cpu'] * 1e3:.0f} | {load['incomplete']} of {len(times)} |"
        )
    pairs = zip(found["without"], found["viewed"], strict=True)
    cost = statistics.median([after - before for before, after in pairs])
    lines += [
        "",
        "| all workers together | of a core |",
        "|---|---|",
        f"| no viewer, median | {statistics.median(found['without']):.2%} |",
        f"| one viewer, median | {statistics.median(found['viewed']):.2%} |",
        f"| the viewer, median of {len(found['viewed'])} turns | {cost:.2%} |",
        "",
    ]
    is_soon, is_cheap = slowest < GOAL_S and not incomplete, cost < GOAL_SHARE
    for goal, is_met in (
        (f"Every page is whole, and there within {GOAL_S:g} s", is_soon),
        (f"A viewer costs all workers together less than {GOAL_SHARE:.0%} of a core", is_cheap),
    ):
        lines.append(f"{goal}: {'met' if is_met else 'MISSED'}.  ")
    return "\n".join(lines) + "\n", is_soon and is_cheap


def main() -> int:
    """Measure, print and perhaps record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--record", type=Path, help="write PATH.json and PATH.md")
    asked = parser.parse_args()
    found = measure(asked.count, asked.turns, asked.seconds)
    text, fine = report(found)
    print(text)
    if asked.record:
        asked.record.with_suffix(".json").write_text(json.dumps(found, indent=1) + "\n")
        asked.record.with_suffix(".md").write_text(text)
    return 0 if fine else 1


if __name__ == "__main__":
    raise SystemExit(main())
