"""
Two hundred clients with `dwebsocket.js`, in Node and Chromium, while all goes wrong.

Four workers serve them behind a network that fails. Other processes publish to their groups, or to
their twenty rooms each, all the time. In the end each client has every message of its groups once
and in order, or was told that it may have lost some, where the backend has lost its data.
"""

from __future__ import annotations

import contextlib
import random
from typing import TYPE_CHECKING, Any

import pytest
from chaos_backends import BACKENDS
from chaos_disasters import Disasters
from chaos_marks import Marks
from chaos_processes import Clients, Network, NodeClients, Publisher, all_are, page_clients
from chaos_verdict import assert_as_promised, assert_nothing_left, idle_worker

from support.server import GUNICORN_GTHREAD, Server
from support.waiting import eventually, pause

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = [
    pytest.mark.slow,
    pytest.mark.every("runs 200 clients while all goes wrong"),
    pytest.mark.needs("node"),
    pytest.mark.needs("chromium"),
]

SHORT_S, WHOLE_S = 30, 180
NODES, OF_NODE, OF_PAGE = 4, 45, 20
ROOMS = (1, 2, 3, 4)
TWENTY = range(1, 21)
# Seconds between two messages of a publisher to a group, and to a room: those go to all clients.
PAUSE_S, PAUSE_OF_ROOMS_S = 0.4, 4.0
OPTIONS = ("--workers", "4", "--threads", "4")
SETTINGS = {
    "ROOT_URLCONF": "project.chaos_views",
    "WEBSOCKET_PING_INTERVAL": 2,
    "WEBSOCKET_PING_TIMEOUT": 3,
    "WEBSOCKET_DRAIN": 1,
}
VIEWS = ("view", "async", "handler")


def plans(count: int, fallbacks: int) -> list[dict[str, Any]]:
    """Return clients of all kinds of views, in two or three groups each."""
    made = []
    for number in range(count):
        rooms = random.sample(ROOMS, 2 + number % 2)
        path = f"/chaos/{VIEWS[number % 3]}/{'-'.join(map(str, rooms))}/"
        made.append({"path": path, "fallback": number < fallbacks})
    return made


def plans_with_rooms(count: int, fallbacks: int) -> list[dict[str, Any]]:
    """Return clients in twenty rooms each."""
    rooms = [f"room-{number}" for number in TWENTY]
    plan = {"path": "/chaos/rooms/", "rooms": rooms}
    return [{**plan, "fallback": number < fallbacks} for number in range(count)]


@pytest.mark.timeout(900)
@pytest.mark.parametrize("membership", ["groups", "rooms"])
@pytest.mark.parametrize(
    "backend", ["local", pytest.param("redis", marks=pytest.mark.needs("redis"))]
)
def test_each_message_once_or_told(
    backend: str,
    membership: str,
    own_server: Callable[..., Server],
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    """Whatever is reloaded, killed, restarted, cut or asleep."""
    seed = random.randrange(2**32)
    print("seed", seed)
    seconds = WHOLE_S if request.config.getoption("--every-server") else SHORT_S
    if membership == "rooms":
        make, numbers, seconds_between = plans_with_rooms, TWENTY, PAUSE_OF_ROOMS_S
    else:
        make, numbers, seconds_between = plans, ROOMS, PAUSE_S
    with contextlib.ExitStack() as stack:
        enter = stack.enter_context
        subject = enter(BACKENDS[backend]())
        server = own_server(
            GUNICORN_GTHREAD, options=OPTIONS, settings={**SETTINGS, **subject.settings}
        )
        stack.callback(lambda: print(server.stderr()[-8000:]))
        idle = idle_worker(server)
        network = enter(Network(server))
        address = network.address
        clients: list[Clients] = [
            enter(NodeClients(address, make(OF_NODE, OF_NODE // 2))) for _ in range(NODES)
        ]
        # A browser has six connections for all of its fallbacks.
        clients.append(enter(page_clients(tmp_path / "profile", address, make(OF_PAGE, 4))))
        eventually(lambda: all_are(clients, "joined"), what="all clients have joined")
        rooms = [f"room-{number}" for number in numbers]
        publishers = [
            enter(Publisher(server, name, how, str(seconds_between), *rooms))
            for name, how in (("A", "sync"), ("B", "sync"), ("C", "async"))
        ]
        disasters = Disasters(server, network, clients, subject, seed)
        disasters.happen(seconds)
        marks = Marks(server, rooms)
        marks.reach(clients)
        # Each comes back once more, and has lost nothing: no numbering begins anew now.
        disasters.cut_all()
        pause(1)
        attempts = [publisher.end() for publisher in publishers]
        marks.reach(clients)
        attempts += marks.attempts
        logs = [log for each in clients for log in each.call("logs")]
        for each in clients:
            each.call("close")
        # A room that was told of a loss, and is left before its next message, has the old position.
        tellings = 2 if membership == "rooms" else 1
        assert_as_promised(logs, attempts, subject, disasters, tellings)
        assert_nothing_left(server, disasters, idle, len(rooms))
