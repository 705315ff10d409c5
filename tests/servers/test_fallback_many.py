"""Thousands of clients of the fallback wait on one worker that serves one request at a time."""

from __future__ import annotations

import contextlib
import statistics
import time
from typing import TYPE_CHECKING

import pytest

from support.event_stream import Stream
from support.polling import Poller
from support.server import GUNICORN_SYNC, Server

if TYPE_CHECKING:
    from collections.abc import Callable

COUNT = 2000
ROOM = "/fallback/room-handler/many/"

pytestmark = [
    pytest.mark.every("thousands of connections"),
    pytest.mark.xdist_group("fallback many"),
]


@pytest.fixture
def server(own_server: Callable[..., Server]) -> Server:
    """One worker, for as many clients as come."""
    settings = {
        "WEBSOCKET_MAX_CONNECTIONS": 2 * COUNT,
        "WEBSOCKET_PING_INTERVAL": 300,
        "MIDDLEWARE": [],
    }
    return own_server(GUNICORN_SYNC, settings=settings)


def page_times(server: Server) -> list[float]:
    """Return how long pages take, in seconds."""

    def measured() -> float:
        begun = time.perf_counter()
        assert server.get("/fallback/echo/").body == b"a page"
        return time.perf_counter() - begun

    return [measured() for _ in range(100)]


def assert_quick(before: list[float], now: list[float]) -> None:
    """Allow for a busy machine, not for a worker that waits."""
    medians = statistics.median(before), statistics.median(now)
    assert medians[1] < max(10 * medians[0], 0.1), medians


def test_streams(server: Server) -> None:
    """Server-sent events: pages are served meanwhile, and each stream gets what it is to get."""
    before = page_times(server)
    with contextlib.ExitStack() as stack:
        streams = [stack.enter_context(Stream.open(server, ROOM)) for _ in range(COUNT)]
        assert_quick(before, page_times(server))
        streams[0].send("to all")
        assert {stream.message() for stream in streams} == {"to all"}


def test_polls(server: Server) -> None:
    """The same for polls that wait."""
    before = page_times(server)
    pollers = [Poller.open(server, ROOM) for _ in range(COUNT)]
    with contextlib.ExitStack() as stack:
        held = [stack.enter_context(poller.begin_poll()) for poller in pollers]
        # The last one that was begun is held when this one is answered.
        assert_quick(before, page_times(server))
        pollers[0].send("to all")
        for poller, peer in zip(pollers, held, strict=True):
            poller.take(peer.read_response())
            assert poller.message() == "to all"
