"""
What one thread for the sync code of Channels' consumers costs, beside several.

    python bench/consumer_threads.py [--seconds 2] [--connections 50]

Consumers on uvicorn with our protocol: a sync one that echoes, one whose calls take 10 ms, and an
async one that asks the database. Prints messages a second, the server's processor time for each,
and the median time of an answer. It needs this package, channels and uvicorn.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import dwebsocket

HERE = Path(__file__).resolve().parent
THREADS = (1, 8, 50)
PATHS = ("echo", "slow", "query")


async def talk(url: str, until: float, times: list[float]) -> None:
    """Have one message after the other answered, until a time."""
    async with await dwebsocket.aconnect(url) as ws:
        while (begun := time.perf_counter()) < until:
            await ws.asend("hello")
            await ws.areceive()
            times.append(time.perf_counter() - begun)


async def load(url: str, connections: int, seconds: float) -> list[float]:
    """Talk on so many connections at the same time; give how long each answer took."""
    times: list[float] = []
    until = time.perf_counter() + seconds
    await asyncio.gather(*(talk(url, until, times) for _ in range(connections)))
    return times


def cpu_s(pid: int) -> float:
    """Give the processor time of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(threads: int, connections: int, seconds: float) -> None:
    """Print the figures for a number of threads."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "uvicorn", "--port", "0", "--log-level", "info"]
        command += ["--app-dir", str(HERE / "servers"), "consumer_threads_site:application"]
        command += ["--ws", "dwebsocket.uvicorn:WebSocketProtocol", "--no-access-log"]
        env = {**os.environ, "THREADS": str(threads), "FOLDER": folder}
        with subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True) as server:
            assert server.stderr is not None
            address = ""
            while "running on" not in address:
                address = server.stderr.readline()
            base = address.partition("http")[2].split()[0]
            for path in PATHS:
                asyncio.run(load(f"ws{base}/{path}", connections, 0.3))
                before = cpu_s(server.pid)
                times = asyncio.run(load(f"ws{base}/{path}", connections, seconds))
                used = (cpu_s(server.pid) - before) / len(times) * 1e6
                print(
                    f"| {threads} | {path} | {len(times) / seconds:,.0f} | {used:.0f} "
                    f"| {statistics.median(times) * 1e3:.1f} |"
                )
            server.terminate()


def main() -> None:
    """Measure all numbers of threads."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--connections", type=int, default=50)
    options = parser.parse_args()
    print("| threads | consumer | messages a second | µs of processor time | median answer, ms |")
    print("|---|---|---|---|---|")
    for threads in THREADS:
        measure(threads, options.connections, options.seconds)


if __name__ == "__main__":
    main()
