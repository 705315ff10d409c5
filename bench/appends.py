"""
What it costs to send to a group whose messages are kept: ``python bench/appends.py``.

Processes send as fast as they can to twenty groups of their own, which keep 1,000 messages each.
``--compare FOLDER`` has another built package do the same, by turns. Needs Django, redis-server,
and a built engine beside the Python sources.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import machine
import redis_server

OURS = Path(__file__).resolve().parent.parent / "python"
#: Backend, processes, bytes of a message.
CASES = (
    ("process", 1, 128),
    ("local", 1, 128),
    ("local", 4, 128),
    ("local", 1, 4096),
    ("local", 4, 4096),
    ("redis", 1, 128),
    ("redis", 4, 128),
)
GROUPS = 20
WARM = 50
DURATION_S = 3.0


def send(backend: str, size: int, prefix: str, together: Any, found: Any) -> None:
    """Send for a while, and put the rate and the processor's µs of a message into ``found``."""
    import django
    from django.conf import settings

    groups = {
        "BACKEND": f"dwebsocket.groups.{backend}",
        "PREFIX": prefix,
        "HISTORY": {"kept-*": {"size": 1000, "seconds": 3600}},
    }
    if backend == "redis":
        groups["LOCATION"] = os.environ[redis_server.ADDRESS]
    settings.configure(SECRET_KEY="x" * 50, WEBSOCKET_GROUPS={"default": groups})
    django.setup()
    from dwebsocket import group

    own = [group(f"kept-{number}") for number in range(GROUPS)]
    message = "x" * size
    for number in range(WARM):
        own[number % GROUPS].send(message)
    together.wait()
    sent, began, before = 0, time.perf_counter(), time.process_time()
    while time.perf_counter() - began < DURATION_S:
        for one in own:
            one.send(message)
        sent += GROUPS
    took, processor = time.perf_counter() - began, time.process_time() - before
    found.put((sent / took, processor / sent * 1e6))


def run(backend: str, processes: int, size: int) -> None:
    """Print what processes that send at once have found, as JSON."""
    spawn = multiprocessing.get_context("spawn")
    together, found = spawn.Barrier(processes), spawn.Queue()
    with tempfile.TemporaryDirectory() as folder:
        arguments = (backend, size, Path(folder).name, together, found)
        senders = [spawn.Process(target=send, args=arguments) for _ in range(processes)]
        for sender in senders:
            sender.start()
        each = [found.get(timeout=60) for _ in senders]
        for sender in senders:
            sender.join()
    rates, costs = zip(*each, strict=True)
    print(json.dumps({"rate": sum(rates), "us": statistics.mean(costs)}))


def measure(package: Path, case: tuple[str, int, int]) -> dict[str, float]:
    """Run a case in processes of their own, with a built package."""
    done = subprocess.run(
        [sys.executable, __file__, "--case", *map(str, case)],
        env={**os.environ, "PYTHONPATH": str(package)},
        check=True,
        stdout=subprocess.PIPE,
    )
    return dict(json.loads(done.stdout))


def main() -> int:
    """Print a table: medians of the turns."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[1])
    parser.add_argument("--compare", type=Path, metavar="FOLDER", help="another built package")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--only", choices=sorted({case[0] for case in CASES}), help="one backend")
    parser.add_argument("--load-core", type=int, default=1, help="of Redis")
    parser.add_argument("--case", nargs=3, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.case:
        run(asked.case[0], int(asked.case[1]), int(asked.case[2]))
        return 0
    packages = {"ours": OURS, **({"compared": asked.compare.absolute()} if asked.compare else {})}
    print("| | " + " | ".join(f"{name}: messages/s, µs" for name in packages) + " |")
    print("|---|" + "---|" * len(packages))
    with redis_server.running(asked.load_core):
        for case in (case for case in CASES if asked.only in {None, case[0]}):
            turns = [
                {name: measure(package, case) for name, package in packages.items()}
                for _ in range(asked.turns)
            ]
            cells = []
            for name in packages:
                rate = statistics.median(turn[name]["rate"] for turn in turns)
                cost = [turn[name]["us"] for turn in turns]
                spread = f"{min(cost):.1f} to {max(cost):.1f}"
                cells.append(f"{rate:,.0f}, {statistics.median(cost):.1f} ({spread})")
            backend, processes, size = case
            print(f"| {backend}, {processes} x {size} B | " + " | ".join(cells) + " |", flush=True)
    print(f"\n{machine.describe()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
