"""
Clients that come and go while others publish, on every backend: each gets every message once.

Hypothesis writes the scripts: clients come to one process or another, read, lose their connections
with what they had not read, processes are killed, connections to the server are cut. Two further
processes publish all the time. At the end each client has come back, and has all messages of the
group in one order, the same for all, in which those of each publisher stand as it has sent them.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
from django.test import override_settings
from history_backends import (
    POSTGRES,
    REDIS,
    HistoryEntry,
    history_entry,
    own_backends,
    redis_server,
)
from history_commands import HistoryCommands
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from postgres_nodes import Nodes as DatabaseNodes
from postgres_nodes import folder
from test_local import Nodes

from dwebsocket import group
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from support.redis import Redis

__all__ = ["folder", "history_entry", "redis_server"]

HISTORY = {"room-*": {"size": 100_000, "seconds": 300}}
CLIENTS = ("anna", "bert", "cleo")
PLACES = 2
# What each of the two other processes publishes meanwhile.
LOAD = 200

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("come"), st.sampled_from(CLIENTS), st.integers(0, PLACES - 1)),
        st.tuples(st.just("read"), st.sampled_from(CLIENTS)),
        st.tuples(st.just("go"), st.sampled_from(CLIENTS)),
        st.tuples(st.just("send"), st.integers(0, PLACES - 1), st.integers(1, 20)),
        st.tuples(st.just("kill"), st.integers(0, PLACES - 1)),
        st.tuples(st.just("cut")),
    ),
    min_size=5,
    max_size=20,
)


class Here(HistoryCommands):
    """This process as one of those that are used by commands."""

    def __call__(self, command: str, *arguments: Any) -> Any:
        """Carry a command out."""
        return getattr(self, command)(*arguments)

    def begin(self, command: str, *arguments: Any) -> None:
        """Carry it out, too: there is but one thread."""
        self.last = self(command, *arguments)

    def answer(self) -> Any:
        """Give what it gave."""
        return self.last

    def kill(self) -> None:
        """End its memberships: this process cannot be killed."""
        for client in list(self.clients):
            self.client_gone(client)

    def send(self, name: str, *messages: str) -> str:
        """Publish messages."""
        for message in messages:
            group(name).send(message)
        return "sent"


@dataclass
class Site:
    """
    The processes of one backend, which outlive an example.

    Attributes:
        start: Starts a process.
        cut: Cuts the connections that get messages from the server.
        places: Where clients are.
        publishers: Those that publish all the time.
    """

    start: Callable[[], Any]
    cut: Callable[[], object]
    places: list[Any] = field(default_factory=list)
    publishers: list[Any] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Start processes."""
        self.places = [self.start() for _ in range(PLACES)]
        self.publishers = [self.start() for _ in range(2)]

    def kill(self, place: int) -> None:
        """Kill one, and start another in its place."""
        self.places[place].kill()
        self.places[place] = self.start()


ALIKE = pytest.mark.every("much like another case")


@pytest.fixture(
    params=[
        "process",
        pytest.param("local", marks=ALIKE),
        pytest.param("postgres", marks=[*POSTGRES.marks, ALIKE]),
        REDIS,
    ]
)
def site(
    request: pytest.FixtureRequest, tmp_path: Path, history_entry: HistoryEntry
) -> Iterator[Site]:
    """Start the processes of a backend, and end them."""
    kind = request.param
    if kind == "process":
        groups = {"default": {**history_entry(kind), "HISTORY": HISTORY}}
        with override_settings(WEBSOCKET_GROUPS=groups), own_backends():
            yield Site(Here, lambda: None)
    elif kind == "postgres":
        of_database = DatabaseNodes(request.getfixturevalue("folder"))
        prefix = os.urandom(8).hex()
        admin = of_database()
        cut = (
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
            "WHERE application_name LIKE 'dwebsocket %'"
        )
        yield Site(lambda: of_database(HISTORY=HISTORY, PREFIX=prefix), lambda: admin("ask", cut))
        of_database.end()
    else:
        entry, nodes = history_entry(kind), Nodes(tmp_path)
        server: Redis | None = None
        if kind == "redis":
            server = request.getfixturevalue("redis_server")
        yield Site(
            lambda: nodes(**entry, HISTORY=HISTORY),
            lambda: server and server.ask("CLIENT", "KILL", "TYPE", "pubsub"),
        )
        for node in nodes.all:
            node.clean_up()


@dataclass
class Client:
    """A client, as the model knows it."""

    name: str
    position: str
    place: int | None = None
    found: list[str] = field(default_factory=list)

    def take(self, messages: list[str]) -> None:
        """Have it get messages, each with its offset."""
        if messages:
            self.found += messages
            epoch = self.position.partition("-")[0]
            self.position = f"{epoch}-{messages[-1].partition(' ')[0]}"


class Run:
    """A script that runs on a site, with a group of its own."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.group = f"room-{os.urandom(8).hex()}"
        begin = site.places[0]("position", self.group)
        self.clients = {name: Client(name, begin) for name in CLIENTS}
        self.sent: dict[str, list[str]] = {}

    def publish(self, publisher: Any, tag: str, count: int, *, waits: bool = True) -> None:
        """Have a process publish messages, which its tag and their numbers tell apart."""
        own = self.sent.setdefault(tag, [])
        messages = [f"{tag}.{number}" for number in range(len(own), len(own) + count)]
        own += messages
        publisher.begin("send", self.group, *messages)
        if waits:
            assert publisher.answer() == "sent"

    def come(self, name: str, place: int) -> None:
        """Have a client come back. It always can: all that it misses is kept."""
        client = self.clients[name]
        self.go(name)
        came = self.site.places[place]("client_back", name, self.group, client.position)
        assert not isinstance(came, dict), came
        is_whole, missed = came
        assert is_whole
        client.take(missed)
        client.place = place

    def read(self, name: str) -> None:
        """Have a client read what has come."""
        client = self.clients[name]
        if client.place is not None:
            client.take(self.site.places[client.place]("client_take", name))

    def go(self, name: str) -> None:
        """Have a client lose its connection, with what it has not read."""
        client = self.clients[name]
        if client.place is not None:
            self.site.places[client.place]("client_gone", name)
            client.place = None

    def send(self, place: int, count: int) -> None:
        """Publish from a process with clients."""
        self.publish(self.site.places[place], f"place {place}", count)

    def kill(self, place: int) -> None:
        """Kill a process, and start another one."""
        self.site.kill(place)
        for client in self.clients.values():
            if client.place == place:
                client.place = None

    def cut(self) -> None:
        """Cut connections to the server."""
        self.site.cut()

    def end(self) -> None:
        """Have all clients come back, and compare what they have got."""
        for publisher in self.site.publishers:
            assert publisher.answer() == "sent"
        total = sum(map(len, self.sent.values()))
        for number, client in enumerate(self.clients.values()):
            if client.place is None:
                self.come(client.name, number % PLACES)

            def has_all(client: Client = client) -> bool:
                self.read(client.name)
                return len(client.found) >= total

            eventually(has_all, what=f"{client.name} has all {total} messages")
        found = [client.found for client in self.clients.values()]
        assert found[0] == found[1] == found[2]
        offsets, messages = zip(*(each.split(" ", 1) for each in found[0]), strict=True)
        assert [*map(int, offsets)] == list(range(1, total + 1))
        for tag, sent in self.sent.items():
            assert [each for each in messages if each.startswith(f"{tag}.")] == sent


@pytest.mark.timeout(300)
@settings(
    max_examples=6,
    deadline=None,
    # No smaller script: the same one may well pass the next time.
    phases=[Phase.generate],
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(script=STEPS)
def test_every_client_gets_every_message_once(site: Site, script: list[tuple[Any, ...]]) -> None:
    """Whatever happens."""
    run = Run(site)
    for number, publisher in enumerate(site.publishers):
        run.publish(publisher, f"publisher {number}", LOAD, waits=False)
    for step, *arguments in script:
        getattr(run, step)(*arguments)
    run.end()
