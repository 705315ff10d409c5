"""
Publishes in turns to a group with a history and to one without.

``python -m kept_publisher HOW TURNS``; HOW is "one at a time", or "pipelined": by many tasks at
once. Prints for each group the µs of each turn as JSON: wall time of a publish, and CPU time of
Redis and of this process together.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from pathlib import Path

import django_site

sys.path.append(str(Path(__file__).resolve().parent.parent))

import machine

django_site.configure("django_site")

from dwebsocket import group  # noqa: E402

GROUPS = ("plain", "kept-a")
PAYLOAD = "x" * 128
TASKS = 64
COUNTS = {"one at a time": 300, "pipelined": 6400}


def one_at_a_time(name: str, count: int) -> None:
    """Publish the next one when the server has the last one."""
    target = group(name)
    for _ in range(count):
        target.send(PAYLOAD)


async def pipelined(name: str, count: int) -> None:
    """Publish by many tasks."""
    target = group(name)

    async def some() -> None:
        for _ in range(count // TASKS):
            await target.asend(PAYLOAD)

    await asyncio.gather(*(some() for _ in range(TASKS)))


def main() -> None:
    """Measure."""
    how, turns = sys.argv[1], int(sys.argv[2])
    count = COUNTS[how]
    pids = [os.getpid(), int(os.environ["BENCH_REDIS_PROCESS"])]
    found = {name: {"wall_us": [], "cpu_us": []} for name in GROUPS}

    def turn(name: str) -> None:
        if how == "pipelined":
            asyncio.run(pipelined(name, count))
        else:
            one_at_a_time(name, count)

    for name in GROUPS:
        # The first ones open connections, load the script, and fill the history.
        turn(name)
    for number in range(turns):
        for name in GROUPS if number % 2 else reversed(GROUPS):
            began, busy = time.perf_counter(), machine.cpu_s(pids)
            turn(name)
            found[name]["cpu_us"].append((machine.cpu_s(pids) - busy) / count * 1e6)
            found[name]["wall_us"].append((time.perf_counter() - began) / count * 1e6)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
