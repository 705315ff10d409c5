"""
Thousands of idle consumers in one process: half of them sync, half async.

5,000 with `--every-server`, a part of that otherwise. Clients come from processes of their own.
"""

from __future__ import annotations

import contextlib
import os
import resource
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from support.consumers import ASYNC, KINDS, SETTINGS, SYNC, nothing_left, warm_up
from support.crowd import Crowd
from support.server import Kind, Server, descriptors, thread_count

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1200),
    pytest.mark.every("opens thousands of connections"),
]

WHOLE, PART = 5_000, 400
IDLE_S = 2
# Handshakes at the same time.
AT_ONCE = 50


@pytest.fixture
def count(request: pytest.FixtureRequest) -> int:
    """Give the number of consumers."""
    return WHOLE if request.config.getoption("--every-server") else PART


@pytest.fixture
def _many_descriptors(count: int) -> Iterator[None]:
    """Let servers that this process starts have a descriptor for each connection."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    need = 2 * count + 500
    if hard != resource.RLIM_INFINITY and hard < need:
        pytest.skip(f"ulimit -Hn is {hard}; this needs {need}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, need), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def busy_s(pid: int) -> float:
    """Give the processor time of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_kib(pid: int) -> int:
    """Give the resident memory of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4


def come_and_go(server: Server, count: int, threads: int) -> None:
    """Open so many, leave them alone for a while, have each answer, and close them."""
    worker = server.worker
    with contextlib.ExitStack() as stack:
        crowds = [stack.enter_context(Crowd.of(server, it, count // 2)) for it in (SYNC, ASYNC)]
        for crowd in crowds:
            assert crowd.sum(f"open {AT_ONCE}", "open") == count // 2
        assert len(descriptors(worker)) >= count
        # Those of handshakes and of `connect` go.
        # Of handshakes, and as many as calls of consumers took long at once while these came.
        assert thread_count(worker) < threads + 3 * AT_ONCE
        before = busy_s(worker)
        pings = crowds[0].sum(f"idle {IDLE_S}", "pings") + crowds[1].sum("idle 0", "pings")
        used = busy_s(worker) - before
        # As with views: next to nothing, and some for each ping.
        assert used < 0.2 + pings * 0.001, f"{used} s of processor time in {IDLE_S} s"
        print(f"{count} idle: {resident_kib(worker)} KiB, {thread_count(worker)} threads, {used} s")
        for crowd in crowds:
            assert crowd.sum("echo 32 200", "echoed") == count // 2
        for crowd in crowds:
            crowd.tell("close")


@pytest.mark.usefixtures("_many_descriptors")
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_idle_consumers(kind: Kind, own_server: Callable[..., Server], count: int) -> None:
    """None costs a thread, or processor time; all answer in the end, and nothing is left."""
    server = own_server(kind, settings={**SETTINGS, "WEBSOCKET_PING_INTERVAL": 60})
    warm_up(server)
    worker = server.worker
    kib = [resident_kib(worker)]
    for _ in range(2):
        with server.quiet(), nothing_left(server, within=300):
            come_and_go(server, count, thread_count(worker))
        kib.append(resident_kib(worker))
    print(f"{kind}, {count} consumers: {kib} KiB before, and after each time")
    # Memory that the allocator did not give back to the system is used again.
    assert kib[2] - kib[1] < (kib[1] - kib[0]) / 2
