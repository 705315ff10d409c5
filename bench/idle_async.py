"""
The number of idle sockets with async views that one process holds, and the cost of each.

    python bench/idle_async.py uvicorn 5000
    python bench/idle_async.py gthread 5000

Opens them, waits, looks at the memory of the serving process, has every one of them echo once, and
closes them. Prints one line of JSON. Needs the packages of tests/requirements.txt and the server.
"""

from __future__ import annotations

import contextlib
import json
import resource
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from support.raw_peer import RawPeer
from support.server import ASGI, GUNICORN_GTHREAD, UVICORN, Server, thread_count

KINDS = {"uvicorn": UVICORN, "gthread": GUNICORN_GTHREAD, **{kind.name: kind for kind in ASGI}}


def memory_kb(pid: int) -> int:
    """Return the resident memory of a process."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0])


def main(name: str, count: int) -> None:
    """Measure one server."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(Server(KINDS[name]))
        with RawPeer.open(server, "/async-echo/") as peer:
            peer.send_text("warm")
            peer.read_message()
        pid = server.worker
        before = memory_kb(pid)
        started = time.monotonic()
        peers = [stack.enter_context(RawPeer.open(server, "/async-echo/")) for _ in range(count)]
        opened = time.monotonic()
        after, threads = memory_kb(pid), thread_count(pid)
        for number, peer in enumerate(peers):
            peer.send_text(f"hello {number}")
        echoed = sum(
            peer.read_message() == f"hello {number}".encode() for number, peer in enumerate(peers)
        )
        ended = time.monotonic()
        result = {
            "server": name,
            "sockets": count,
            "echoed": echoed,
            "handshakes_per_s": round(count / (opened - started)),
            "kb_each": round((after - before) / count, 1),
            "threads": threads,
            "all_echoed_s": round(ended - opened, 2),
            "stderr": server.stderr(),
        }
        print(json.dumps(result))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
