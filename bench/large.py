"""
The cost of very many idle WebSockets: processes, kernel, processor time, handshakes.

    python bench/large.py gthread async 50000 --workers 4
    python bench/large.py uvicorn async 19000
    python bench/large.py gthread sync 10000

Starts a server of the test project, opens the sockets from processes of their own, lets them be for
a while and has each echo once. Prints one line of JSON; docs/scaling.md explains it. Needs
the packages of tests/requirements.txt, the server, and root for the kernel's memory of each kind.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from support.crowd import Crowd
from support.server import GUNICORN_GTHREAD, UVICORN, Server, thread_count
from support.waiting import eventually

PATHS = {"async": "/async-echo/", "sync": "/echo-exact/"}
SETTINGS = {
    "WEBSOCKET_MAX_CONNECTIONS": None,
    "MIDDLEWARE": ["dwebsocket.middleware.WebSocketMiddleware"],
}
OF_THE_KERNEL = ("Slab", "KernelStack", "PageTables")


def processes_kib(pids: list[int]) -> int:
    """Return the memory of processes; a page that several share counts once."""
    rollups = [Path(f"/proc/{pid}/smaps_rollup").read_text() for pid in pids]
    return sum(int(text.split("Pss:")[1].split()[0]) for text in rollups)


def processor_s(pids: list[int]) -> float:
    """Return the processor time of processes."""
    fields = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in pids]
    return sum(int(each[11]) + int(each[12]) for each in fields) / os.sysconf("SC_CLK_TCK")


def kernel_bytes() -> dict[str, int]:
    """Return the memory of this machine's kernel, by kind."""
    lines = [line.split() for line in Path("/proc/meminfo").read_text().splitlines()]
    found = {name[:-1]: int(kib) * 1024 for name, kib, *_ in lines if name[:-1] in OF_THE_KERNEL}
    sockets = Path("/proc/net/sockstat").read_text().split("TCP:")[1].split("\n")[0].split()
    found["TCP buffers"] = int(sockets[-1]) * resource.getpagesize()
    return found


def main() -> None:
    """Measure one server."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument("server", choices=["gthread", "uvicorn"])
    parser.add_argument("view", choices=PATHS)
    parser.add_argument("count", type=int)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--at-once", type=int, default=200, help="handshakes under way")
    parser.add_argument("--backlog", type=int, default=4096, help="of gunicorn")
    parser.add_argument("--idle", type=float, default=20, metavar="S")
    asked = parser.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    kind = UVICORN if asked.server == "uvicorn" else GUNICORN_GTHREAD
    options = ("--workers", str(asked.workers), "--backlog", str(asked.backlog))
    with Server(kind, options=() if kind is UVICORN else options, settings=SETTINGS) as server:
        if kind is not UVICORN:
            eventually(lambda: len(server.workers()) == asked.workers, 30)
        pids = server.workers()
        with Crowd.of(server, PATHS[asked.view], asked.count) as crowd:
            crowd.tell("idle 1")
            before, kernel = processes_kib(pids), kernel_bytes()
            opened = crowd.tell(f"open {asked.at_once}")
            crowd.tell("idle 5")
            each = {name: now - kernel[name] for name, now in kernel_bytes().items()}
            memory, busy = processes_kib(pids) - before, processor_s(pids)
            pings = crowd.sum(f"idle {asked.idle}", "pings")
            busy = processor_s(pids) - busy
            result = {
                "sockets": asked.count,
                "process_kib_each": round(memory / asked.count, 1),
                # The clients' ends are here, too: half of slabs and buffers is theirs.
                "kernel_bytes_each_both_ends": {k: round(v / asked.count) for k, v in each.items()},
                "threads": [thread_count(pid) for pid in pids],
                "handshakes_per_s": round(asked.count / max(part["seconds"] for part in opened)),
                "pings_per_s": round(pings / asked.idle),
                "cores_while_idle": round(busy / asked.idle, 4),
                "cpu_us_per_ping": round(busy / max(pings, 1) * 1e6, 1),
                "echoed": crowd.sum("echo 32 500", "echoed"),
            }
            crowd.tell("close")
        print(json.dumps(result))


if __name__ == "__main__":
    main()
