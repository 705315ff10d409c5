"""Five thousand idle sockets with async views in one process, as bench/idle_async.py measures."""

from __future__ import annotations

import resource
from typing import TYPE_CHECKING

import pytest

from support.idle import outlive
from support.raw_peer import RawPeer
from support.server import GUNICORN_GTHREAD, UVICORN, Kind, Server, descriptors, thread_count
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.every("opens thousands of connections")

IDLE = 5_000
DESCRIPTORS = 2 * IDLE + 100


@pytest.fixture
def _many_descriptors() -> Iterator[None]:
    """Let this process, and servers that it starts, have a descriptor for each connection."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < DESCRIPTORS:
        pytest.skip(f"ulimit -Hn is {hard}; this needs {DESCRIPTORS}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, DESCRIPTORS), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.usefixtures("_many_descriptors")
@pytest.mark.parametrize(
    ("kind", "options", "settings"),
    [
        (UVICORN, ("--ws-ping-interval", "600"), {"WEBSOCKET_PING_INTERVAL": None}),
        (GUNICORN_GTHREAD, (), {"WEBSOCKET_PING_INTERVAL": None}),
    ],
    ids=["uvicorn", "gthread"],
)
def test_five_thousand_idle(
    kind: Kind,
    options: tuple[str, ...],
    settings: dict[str, object],
    own_server: Callable[..., Server],
) -> None:
    """All stay while pages are served, each echoes in the end; none costs a thread."""
    # Pings are not answered while thousands connect.
    server = own_server(kind, options=options, settings=settings)
    with RawPeer.open(server, "/async-echo/") as peer:
        # The loop of async views is kept, and what wakes it: that is there as soon as one waits.
        eventually(lambda: server.status()["loops"] == 1, what="the view waits")
        peer.send_text("warm")
        assert peer.read_message() == b"warm"
    with server.quiet(), server.nothing_left(within=150):
        worker, threads = server.worker, thread_count(server.worker)
        with RawPeer.open_many(server, "/async-echo/", IDLE, at_once=100) as peers:
            assert len(descriptors(worker)) >= IDLE
            # Under ASGI each handshake has a thread, which goes when it is over.
            eventually(lambda: thread_count(worker) <= threads, what="no more threads than before")
            outlive(server, peers, pages=3)
