"""The memory of kept messages: publishes to many groups, and prints the bytes of one as JSON."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from urllib.parse import urlsplit

import memberships

from dwebsocket import group
from dwebsocket.groups import backends

PAYLOAD = "x" * 128
GROUPS, EACH = 200, 100


def of_process() -> int:
    """Return the memory of this process."""
    return memberships.pss()


def of_files() -> int:
    """Return the size of the history's files on the disk."""
    files = Path(backends.backend("default").folder).rglob("*")
    return sum(file.stat().st_blocks * 512 for file in files if file.is_file())


def of_redis() -> int:
    """Return the memory that Redis says it uses for data."""
    place = urlsplit(os.environ["BENCH_REDIS"])
    with socket.create_connection((place.hostname, place.port), timeout=10) as client:
        client.sendall(b"INFO memory\r\n")
        answer = b""
        while b"used_memory_dataset:" not in answer or not answer.endswith(b"\r\n"):
            answer += client.recv(65536)
    return int(answer.partition(b"used_memory_dataset:")[2].split()[0])


WAYS = {
    "process": ("PSS", of_process),
    "local": ("file", of_files),
    "redis": ("memory of Redis", of_redis),
}


def main() -> None:
    """Measure."""
    backend = json.loads(os.environ["BENCH_GROUPS"])["BACKEND"].rpartition(".")[2]
    where, used = WAYS[backend]
    group("kept-first").send(PAYLOAD)
    before = used()
    for number in range(GROUPS):
        target = group(f"kept-{number}")
        for _ in range(EACH):
            target.send(PAYLOAD)
    taken = used() - before
    print(json.dumps({"where": where, "message_bytes": taken / (GROUPS * EACH)}))


if __name__ == "__main__":
    main()
