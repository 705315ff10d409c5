"""
Hundreds of members of many workers, thousands of messages of several publishers, and two deaths.

Each member gets every message once and in each publisher's order while one worker is killed and one
reloaded: by way of the local backend, and between machines that have only a server in common.
"""

from __future__ import annotations

import contextlib
import os
import signal
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from node_process import Node

from support import postgres, redis
from support.audience import (
    Audience,
    Member,
    assert_got_all,
    assert_got_the_first,
    assert_got_the_rest,
    message,
)
from support.namespace import Namespace, namespace
from support.server import GUNICORN_GTHREAD, GUNICORN_GTHREAD_UNIX, Server, is_running
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any

pytestmark = [
    pytest.mark.every("millions of deliveries"),
    pytest.mark.timeout(300),
]

NODE = Path(__file__).with_name("project_node.py")
MEMBERS = 500
# With --every-server, and otherwise.
WHOLE, PART = 20_000, 5_000
# Beside two that are views.
PUBLISHERS = 3
# Each publishes its share in so many rounds.
ROUNDS = 10
KILL_IN, RELOAD_IN = 2, 5
GHOSTS_S = 5

# Members need not answer pings then.
NO_PINGS = {"WEBSOCKET_PING_INTERVAL": None}


@dataclass
class Site:
    """
    The servers of a project, all of whose processes share groups.

    Attributes:
        servers: One a machine.
        nodes: Processes that publish: no servers.
        census: A process that counts.
    """

    servers: list[Server] = field(default_factory=list)
    nodes: list[Node] = field(default_factory=list)
    census: Node | None = None

    def workers(self) -> list[int]:
        """Give the workers of all servers."""
        return [pid for server in self.servers for pid in server.workers()]

    def count(self) -> int:
        """Count the members of the room."""
        assert self.census is not None
        return self.census("count", "room-one")


@contextlib.contextmanager
def site(servers: Sequence[Server]) -> Iterator[Site]:
    """Run servers, processes that publish beside each of them, and one on this machine."""
    found = Site()
    with contextlib.ExitStack() as stack:
        for server in servers:
            found.servers.append(stack.enter_context(server))
        places = [*((server, server.prefix) for server in servers), (servers[0], ())]
        for server, prefix in (places * 2)[: PUBLISHERS + 1]:
            node = Node(NODE, None, prefix=prefix, env=server.env, cwd=server.cwd)
            stack.callback(node.clean_up)
            found.nodes.append(node)
        found.census = found.nodes.pop()
        yield found


def everybody_gets_everything(site: Site, messages: int) -> None:
    """
    Publish to all, kill a worker, reload another, and look at what each member has got.

    Members of these two end there, and others join in their places.
    """
    with Audience() as audience:
        for number, server in enumerate(site.servers * 2):
            path = "/groups/room/one/" if number < len(site.servers) else "/groups/async-room/one/"
            audience.join(server, path, MEMBERS // len(site.servers) // 2)
        first = list(audience.members)
        assert {member.worker for member in first} == set(site.workers())
        eventually(lambda: site.count() == MEMBERS, what="all are counted")
        killed, reloaded = site.servers[0].workers()[0], site.servers[-1].workers()[-1]
        staying = [member for member in first if member.worker not in (killed, reloaded)]
        # Views publish what their clients send.
        clients = [staying[0], staying[-1]]
        names = "ABCDEFGH"[: len(site.nodes) + len(clients)]
        share = messages // len(names) // ROUNDS
        ends = dict.fromkeys(names, ROUNDS * share - 1)
        late: list[tuple[int, Member]] = []
        for number in range(ROUNDS):
            start, end = number * share, (number + 1) * share
            for name, node in zip(names, site.nodes, strict=False):
                node.begin("publish", "room-one", name, start, end)
            for name, member in zip(names[::-1], clients, strict=False):
                for each in range(start, end):
                    member.peer.send_text(message(name, each))
            if number == KILL_IN:
                late += [(end, each) for each in replaced(site, audience, killed, signal.SIGKILL)]
            if number == RELOAD_IN:
                late += [(end, each) for each in replaced(site, audience, reloaded, signal.SIGTERM)]
            assert [node.answer() for node in site.nodes] == [share] * len(site.nodes)
        audience.wait_for([*staying, *(member for _, member in late if not member.is_over)], ends)
        for member in staying:
            assert_got_all(member, ends)
        for member in first:
            if member not in staying:
                assert_got_the_first(member, ends)
        for joined_before, member in late:
            if member.is_over:
                # It had come to the worker that was reloaded afterwards.
                assert member.worker == reloaded
            else:
                assert_got_the_rest(member, ends, joined_before)
        eventually(lambda: site.count() == MEMBERS, what="all are counted")
        audience.leave()
        eventually(lambda: site.count() == 0, GHOSTS_S, "all have left")


def replaced(site: Site, audience: Audience, worker: int, how: signal.Signals) -> list[Member]:
    """End a worker, see its members vanish from the count, and let as many others join."""
    ended = [member for member in audience.members if member.worker == worker]
    there = sum(not member.is_over for member in audience.members)
    os.kill(worker, how)
    eventually(lambda: not is_running(worker), what="the worker has ended")
    eventually(lambda: site.count() == there - len(ended), GHOSTS_S, "no ghosts are counted")
    audience.wait_for_the_end_of(ended)
    server = ended[0].server
    eventually(lambda: worker not in server.workers(), what="the worker is gone")
    joined = audience.join(server, "/groups/room/one/", len(ended))
    assert sum(not member.is_over for member in audience.members) == there
    return joined


@pytest.fixture
def messages(request: pytest.FixtureRequest) -> int:
    """The number of messages that all publishers together send."""
    return WHOLE if request.config.getoption("--every-server") else PART


def test_workers_of_one_machine(database: Path, messages: int) -> None:
    """With the local backend."""
    with site([server(database, 4)]) as found:
        everybody_gets_everything(found, messages)


def server(
    database: Path, workers: int, machine: Namespace | None = None, **settings: Any
) -> Server:
    """Give a server that is to run on a machine, or on this one."""
    return Server(
        # Clients here reach it by its socket, wherever it runs.
        GUNICORN_GTHREAD_UNIX if machine else GUNICORN_GTHREAD,
        options=("--workers", str(workers)),
        settings={**NO_PINGS, **settings},
        database=database,
        prefix=machine.command if machine else (),
    )


@pytest.fixture
def machines() -> Iterator[list[Namespace]]:
    """Two machines, each with a wire to this one and none to the other."""
    with namespace() as one, namespace() as two:
        yield [one, two]


@pytest.mark.needs("redis")
def test_machines_that_share_redis(
    machines: list[Namespace], database: Path, messages: int
) -> None:
    """Which runs on this one; two workers each."""
    addresses = " ".join(["127.0.0.1", *(machine.here for machine in machines)])
    with redis.Redis("--bind", addresses, "--protected-mode", "no") as at:
        servers = []
        for machine in machines:
            groups = {"default": redis.settings(f"redis://{machine.here}:{at.port}/0")}
            servers.append(server(database, 2, machine, WEBSOCKET_GROUPS=groups))
        with site(servers) as found:
            everybody_gets_everything(found, messages)


@pytest.mark.every("test_postgres_workers.py has many members, too")
@pytest.mark.needs("postgresql")
def test_machines_that_share_postgresql(
    machines: list[Namespace], database: Path, messages: int
) -> None:
    """Which runs on this one; two workers each."""
    with postgres.postgres(addresses=[one.here for one in machines]):
        servers = []
        for machine in machines:
            default = {
                "ENGINE": "django.db.backends.postgresql",
                "NAME": "postgres",
                "USER": "postgres",
                "HOST": machine.here,
            }
            groups = {"default": {"BACKEND": "dwebsocket.groups.postgres", "TIMEOUT": 20}}
            servers.append(
                server(
                    *(database, 2, machine),
                    DATABASES={"default": default},
                    WEBSOCKET_GROUPS=groups,
                )
            )
        with site(servers) as found:
            everybody_gets_everything(found, messages)
