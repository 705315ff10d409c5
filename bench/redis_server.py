"""A Redis server for the subjects that need one: on the load generator's core, nothing on disks."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import subprocess
import time
from typing import TYPE_CHECKING

from machine import BenchError

if TYPE_CHECKING:
    from collections.abc import Iterator

#: The variable that has its address while it runs, for this process and its children.
ADDRESS = "BENCH_REDIS"
#: The variable that has the number of its process.
PROCESS = "BENCH_REDIS_PROCESS"
START_S = 10


def is_here() -> bool:
    """Whether it is installed."""
    return shutil.which("redis-server") is not None


def version() -> str:
    """Return that of the server that is installed."""
    if not is_here():
        return "not installed"
    said = subprocess.run(["redis-server", "--version"], capture_output=True, text=True).stdout
    found = re.search(r"v=(\S+)", said)
    return found[1] if found else said.strip()


@contextlib.contextmanager
def running(core: int) -> Iterator[int]:
    """Run it; yields its port, and sets both variables for this process and its children."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", ""]
    server = subprocess.Popen(
        ["taskset", "--cpu-list", str(core), *command], stdout=subprocess.DEVNULL
    )
    try:
        _wait_for(server, port)
        os.environ[ADDRESS] = f"redis://127.0.0.1:{port}/0"
        # `taskset` has turned into it.
        os.environ[PROCESS] = str(server.pid)
        yield port
    finally:
        for name in (ADDRESS, PROCESS):
            os.environ.pop(name, None)
        server.kill()
        server.wait()


def _wait_for(server: subprocess.Popen[bytes], port: int) -> None:
    give_up = time.monotonic() + START_S
    while True:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=START_S) as client:
                client.sendall(b"PING\r\n")
                if client.recv(100).startswith(b"+PONG"):
                    return
        except OSError as error:
            if server.poll() is not None or time.monotonic() > give_up:
                raise BenchError(f"redis-server does not start: {error}") from error
        time.sleep(0.05)
