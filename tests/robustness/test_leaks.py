"""
Thousands of connections leave nothing behind in one process that grows.

Memory, Python objects, descriptors, threads and the engine's own count, after every kind of end.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from support.raw_peer import CLOSE, TEXT, RawPeer, build_frame, handshake_request
from support.server import GUNICORN_SYNC, UVICORN, Kind, Server, descriptors, thread_count
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.extended("opens thousands of connections")

# As many as one run of the whole suite has time for; with --every-server, as many as a busy day.
SHORT, LONG = 3_000, 100_000
AT_ONCE = 4


def close_politely(server: Server) -> None:
    """Talk, and part with a closing handshake."""
    with RawPeer.open(server, "/echo/") as peer:
        peer.send_text("hello")
        assert peer.read_message() == b"hello"
        peer.send_close()
        assert peer.read_frame().opcode == CLOSE


def vanish(server: Server) -> None:
    """Go in the middle of a message, with a reset."""
    with RawPeer.open(server, "/echo/") as peer:
        peer.send(build_frame(TEXT, b"never whole")[:-2])
        peer.vanish()


def hang_up(server: Server) -> None:
    """Go without a close frame, in an async view."""
    with RawPeer.open(server, "/async-echo/") as peer:
        peer.send_text("hello")
        assert peer.read_message() == b"hello"


def break_a_rule(server: Server) -> None:
    """Send a frame that is not allowed, and be closed for it."""
    with RawPeer.open(server, "/echo/") as peer:
        peer.send(build_frame(TEXT, b"\xff"))
        assert peer.read_frame().code == 1007


def be_closed(server: Server) -> None:
    """Have the view close."""
    with RawPeer.open(server, "/closes-first/") as peer:
        assert peer.read_frame().code == 4001


def break_the_view(server: Server) -> None:
    """Have the view raise."""
    with RawPeer.open(server, "/raises-after-message/") as peer:
        peer.send_text("go")
        while peer.read_frame().opcode != CLOSE:
            pass


def be_accepted(server: Server) -> None:
    """Have the view decide, and leave."""
    with RawPeer.open(server, "/decides/?do=accept") as peer:
        peer.send_close()
        assert peer.read_frame().opcode == CLOSE


def be_rejected(server: Server) -> None:
    """Have the view refuse."""
    with RawPeer(server.address) as peer:
        peer.send(handshake_request("/decides/?do=reject", server.host))
        assert peer.read_response().status == 404


CYCLES: list[Callable[[Server], None]] = [
    close_politely,
    vanish,
    hang_up,
    break_a_rule,
    be_closed,
    break_the_view,
    be_accepted,
    be_rejected,
]


def run(server: Server, count: int) -> None:
    """Let `count` clients come and go, a few at a time."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for _ in pool.map(lambda number: CYCLES[number % len(CYCLES)](server), range(count)):
            pass


def resident_kib(pid: int) -> int:
    """Return a process's resident memory."""
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))


def at_rest(server: Server) -> dict[str, int]:
    """Count what the process holds when all clients have gone."""
    eventually(lambda: server.get("/census/").json()["connections"] == 0, 60)
    server.at_rest()
    pid = server.worker
    census: dict[str, int] = server.get("/census/").json()
    return {
        **census,
        "descriptors": len(descriptors(pid)),
        "threads": thread_count(pid),
        "kib": resident_kib(pid),
    }


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("kind", [GUNICORN_SYNC, UVICORN], ids=str)
def test_connections_leave_nothing(
    kind: Kind, own_server: Callable[..., Server], request: pytest.FixtureRequest
) -> None:
    """After the first third of the connections, nothing more is added."""
    count = LONG if request.config.getoption("--every-server") else SHORT
    server = own_server(kind)
    run(server, count // 3)
    before = at_rest(server)
    run(server, count - count // 3)
    after = at_rest(server)
    print(f"{kind}, {count} cycles: {before} -> {after}")
    assert (after["connections"], after["visitors"]) == (0, 0)
    # The last request's own may be there still.
    eventually(lambda: len(descriptors(server.worker)) <= before["descriptors"], 60)
    if kind is not UVICORN:
        # There Django's and the loop's own threads come and go, each with Django's connections.
        eventually(lambda: thread_count(server.worker) <= before["threads"], 60)
        # The log's last records, a cache here and there: not one for each connection.
        assert after["objects"] - before["objects"] < 200
    # Pages that the allocator has not given back yet come and go: a few KiB for each client.
    slack = 0.02 * before["kib"] if count == LONG else 4 * (count - count // 3)
    assert after["kib"] - before["kib"] < slack
