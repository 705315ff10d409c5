"""
Very many sockets in one process, and in the workers of one server.

Full size takes `--every-server`, minutes, and a machine that lets a process have 20,000
descriptors; otherwise a tenth of it is opened. Clients come from processes of their own.
"""

from __future__ import annotations

import os
import resource
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from dwebsocket.operations.doctor import machine
from support.crowd import Crowd
from support.server import GUNICORN_GTHREAD, UVICORN, Kind, Server, descriptors, thread_count
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1200),
    pytest.mark.every("opens thousands of connections"),
]

# Beside its connections: what a server opens for itself, and in passing for each handshake.
SPARE = 500
STACK_BYTES = 4 * 2**20
# As large as the kernel lets it be without being asked. gunicorn's own is half of that.
BACKLOG = ("--backlog", "4096")
UNLIMITED = {"WEBSOCKET_MAX_CONNECTIONS": None}
# The test project's view of each kind that echoes.
ASYNC, SYNC = "/async-echo/", "/echo-exact/"


@pytest.fixture
def size(request: pytest.FixtureRequest) -> Callable[[int], int]:
    """Give how many connections to open where the full size is so many."""
    whole = request.config.getoption("--every-server")
    return lambda full: full if whole else full // 10


@pytest.fixture
def _many_descriptors(size: Callable[[int], int]) -> Iterator[None]:
    """Let servers that this process starts have as many descriptors as they may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    need = size(19_000) + SPARE
    if hard != resource.RLIM_INFINITY and hard < need:
        pytest.skip(f"ulimit -Hn is {hard}; this needs {need}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, need), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def need_threads(count: int) -> None:
    """Skip where the machine does not let a process have so many threads."""
    short = [finding.what for finding in machine.threads(count, count, STACK_BYTES)]
    if short:
        pytest.skip(short[0])


def busy_s(pid: int) -> float:
    """Give the processor time of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def warm_up(server: Server, path: str) -> None:
    """Have the server start what it keeps."""
    with Crowd.of(server, path, 2) as crowd:
        crowd.tell("open 2")
        crowd.tell("echo 10 2")
        crowd.tell("close")
    server.warm_up()


@pytest.mark.usefixtures("_many_descriptors")
@pytest.mark.parametrize("kind", [GUNICORN_GTHREAD, UVICORN], ids=str)
def test_async_views_of_one_process(
    kind: Kind, own_server: Callable[..., Server], size: Callable[[int], int]
) -> None:
    """19,000 stay, pages are served beside them, each echoes in the end; none costs a thread."""
    count = size(19_000)
    server = own_server(kind, settings=UNLIMITED)
    warm_up(server, ASYNC)
    with server.quiet(), server.nothing_left(within=60):
        worker, threads = server.worker, thread_count(server.worker)
        with Crowd.of(server, ASYNC, count) as crowd:
            assert crowd.sum("open 200", "open") == count
            assert len(descriptors(worker)) >= count
            # Under ASGI each handshake has one of its own, for a moment.
            eventually(lambda: thread_count(worker) <= threads, 60)
            assert server.get("/status/").status == 200
            assert crowd.sum("echo 32 500", "echoed") == count
            crowd.tell("close")


@pytest.mark.usefixtures("_many_descriptors")
def test_workers_of_one_gunicorn(
    own_server: Callable[..., Server], size: Callable[[int], int]
) -> None:
    """50,000 over four workers: more than one process could hold, from many addresses."""
    count = size(50_000)
    settings = {**UNLIMITED, "WEBSOCKET_COMPRESSION": False}
    options = ("--workers", "4", *BACKLOG)
    server = own_server(GUNICORN_GTHREAD, options=options, settings=settings)
    eventually(lambda: len(server.workers()) == 4, 60)
    workers = server.workers()
    with server.quiet(), Crowd.of(server, ASYNC, count) as crowd:
        assert crowd.sum("open 200", "open") == count
        assert sum(len(descriptors(worker)) for worker in workers) >= count
        assert crowd.sum("echo 32 500", "echoed") == count
        crowd.tell("close")
        assert server.workers() == workers


@pytest.mark.usefixtures("_many_descriptors")
def test_sync_views_on_threads(
    own_server: Callable[..., Server], size: Callable[[int], int]
) -> None:
    """10,000, each on a thread of its own, each echoes; the threads go with them."""
    count = size(10_000)
    need_threads(count)
    server = own_server(GUNICORN_GTHREAD, settings=UNLIMITED)
    warm_up(server, SYNC)
    with server.quiet(), server.nothing_left(within=60):
        with Crowd.of(server, SYNC, count) as crowd:
            assert crowd.sum("open 200", "open") == count
            assert thread_count(server.worker) >= count
            assert server.get("/status/").status == 200
            assert crowd.sum("echo 32 500", "echoed") == count
            crowd.tell("close")


@pytest.mark.usefixtures("_many_descriptors")
def test_storm(own_server: Callable[..., Server], size: Callable[[int], int]) -> None:
    """
    15,000 come at the same moment: all are answered, and none gets anything but its 101.

    Clients for which the queue of the listening socket has no room may be refused by the kernel,
    and connect again.
    """
    count = size(15_000)
    server = own_server(GUNICORN_GTHREAD, options=BACKLOG, settings=UNLIMITED)
    warm_up(server, ASYNC)
    with server.quiet(), server.nothing_left(within=60):
        with Crowd.of(server, ASYNC, count) as crowd:
            assert crowd.sum(f"open {count}", "open") == count
            assert crowd.sum("echo 32 500", "echoed") == count
            crowd.tell("close")


@pytest.mark.usefixtures("_many_descriptors")
def test_idle_costs_no_processor_time(
    own_server: Callable[..., Server], size: Callable[[int], int]
) -> None:
    """No socket is looked at while nothing happens to it, and yet each is pinged."""
    count, seconds, interval = size(19_000), 4, 60
    server = own_server(
        GUNICORN_GTHREAD, settings={**UNLIMITED, "WEBSOCKET_PING_INTERVAL": interval}
    )
    with Crowd.of(server, ASYNC, count) as crowd:
        crowd.tell("open 200")
        worker = server.worker
        before, pings = busy_s(worker), crowd.sum(f"idle {seconds}", "pings")
        used = busy_s(worker) - before
        # Measured: 0.01 s and some 50 µs for each ping. Looking at each once a second would be more
        # than this.
        assert used < 0.2 + pings * 0.001, f"{used} s of processor time in {seconds} s"
    server = own_server(GUNICORN_GTHREAD, settings={**UNLIMITED, "WEBSOCKET_PING_INTERVAL": 2})
    with Crowd.of(server, ASYNC, 1_000) as crowd:
        crowd.tell("open 200")
        came: list[int] = []

        def all_pinged_twice() -> bool:
            came.append(crowd.sum("idle 1", "pings"))
            return sum(came) >= 2_000

        eventually(all_pinged_twice, 60)
        assert crowd.sum("idle 0", "open") == 1_000
