"""Presence by a server: nothing is kept there, and an outage heals by itself."""

from __future__ import annotations

import contextlib
import os
import time
from typing import TYPE_CHECKING, Any

import pytest
from postgres_nodes import folder  # noqa: F401
from test_presence_nodes import Nodes, members

from support import postgres
from support.pages import block
from support.redis import Redis, settings
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

# The rights that a user of Redis needs, as the page has them.
RIGHTS = block("docs/groups.md", "ACL SETUSER web on", "").partition(" resetchannels ")[2]


class Site:
    """A server of its own, and the processes of a test that use it."""

    def __init__(self, nodes: Nodes, away: Callable[[], AbstractContextManager[Any]]) -> None:
        self.start = nodes
        #: Stops the server meanwhile.
        self.away = away


@pytest.fixture(
    params=[
        pytest.param("redis", marks=pytest.mark.needs("redis")),
        pytest.param("postgres", marks=pytest.mark.needs("postgresql")),
    ]
)
def site(request: pytest.FixtureRequest) -> Iterator[Site]:
    """Start a server that the test may stop."""
    with contextlib.ExitStack() as stack:
        own = {"PREFIX": os.urandom(8).hex(), "TIMEOUT": 20.0}
        if request.param == "redis":
            server = stack.enter_context(Redis())
            nodes, away = Nodes(settings(server.url, **own), {}), server.away
        else:
            place = stack.enter_context(postgres.postgres())
            entry = {"BACKEND": "dwebsocket.groups.postgres", **own}
            nodes = Nodes(entry, {"default": postgres.entry(place)})
            away = lambda: postgres.away(place)  # noqa: E731
        stack.callback(lambda: [node.clean_up() for node in nodes.all])
        yield Site(nodes, away)


def test_a_server_that_restarts(site: Site) -> None:
    """Nobody leaves by that, and what has changed meanwhile is known afterwards."""
    site.start.grace = 2.0
    one, two = site.start(), site.start()
    watcher = two("come", "watcher", "watcher", None, True)
    anna, bert = one("come", "1", "anna"), one("come", "2", "bert")
    eventually(lambda: members(two) == {watcher: 1, anna: 1, bert: 1})
    with site.away():
        for node in (one, two):
            eventually(lambda node=node: "error" in node("members"))
            assert node("members")["error"] == "GroupUnavailable"
            began = time.monotonic()
            assert node("come", "x", "x")["error"] == "GroupUnavailable"
            assert time.monotonic() - began < 30
        one("close", "2")
        # Longer than what it takes to notice that a process was killed, and than the grace.
        time.sleep(7)
    for node in (one, two):
        eventually(lambda node=node: "error" not in node("members"))
    eventually(lambda: members(two) == members(one) == {watcher: 1, anna: 1})
    told = two("told", "watcher", 3)
    assert sorted(told[:2]) == [["joined", anna], ["joined", bert]]
    assert told[2:] == [["left", bert]]
    carl = one("come", "3", "carl")
    assert two("told", "watcher", 1) == [["joined", carl]]


@pytest.mark.needs("redis")
def test_redis_keeps_nothing() -> None:
    """So a server that is emptied loses nothing; and a user needs no right to any key."""
    with Redis() as server, contextlib.ExitStack() as stack:
        server.ask("ACL", "SETUSER", "web", "on", ">pw", "resetchannels", *RIGHTS.split())
        url = server.url.replace("//", "//web:pw@")
        nodes = Nodes(settings(url, TIMEOUT=20.0), {})
        stack.callback(lambda: [node.clean_up() for node in nodes.all])
        one, two = nodes(), nodes()
        anna, bert = one("come", "1", "anna"), two("come", "2", "bert")
        eventually(lambda: members(one) == members(two) == {anna: 1, bert: 1})
        assert server.ask("DBSIZE") == "0"
        server.ask("FLUSHALL")
        carl = one("come", "3", "carl")
        eventually(lambda: members(two) == {anna: 1, bert: 1, carl: 1})
        late = nodes()
        eventually(lambda: members(late) == {anna: 1, bert: 1, carl: 1})


@pytest.mark.needs("redis")
@pytest.mark.parametrize("changed", ["database", "PREFIX", "secret"])
def test_projects_do_not_meet(changed: str) -> None:
    """With another database number, PREFIX or SECRET_KEY."""
    with Redis() as server, contextlib.ExitStack() as stack:
        nodes = Nodes(settings(server.url, TIMEOUT=20.0), {})
        stack.callback(lambda: [node.clean_up() for node in nodes.all])
        one = nodes()
        anna = one("come", "1", "anna")
        if changed == "database":
            nodes.backend = {**nodes.backend, "LOCATION": server.url.rpartition("/")[0] + "/1"}
        elif changed == "PREFIX":
            nodes.backend = {**nodes.backend, "PREFIX": "other"}
        else:
            nodes.secret = "other"
        two = nodes()
        bert = two("come", "2", "bert")
        assert (members(one), members(two)) == ({anna: 1}, {bert: 1})


@pytest.mark.needs("redis")
def test_the_subscription_ends_behind_the_last_user() -> None:
    """That of the group: the grace is waited for with it."""
    with Redis() as server, contextlib.ExitStack() as stack:
        nodes = Nodes(settings(server.url, TIMEOUT=20.0), {})
        stack.callback(lambda: [node.clean_up() for node in nodes.all])
        nodes.grace = 0.5
        node = nodes()
        node("come", "1", "anna")
        assert "room-1" in server.channels()
        node("close", "1")
        eventually(lambda: "room-1" not in server.channels())
        assert members(node) == {}
        assert members(nodes()) == {}


@pytest.mark.needs("postgresql")
def test_long_information_with_postgres(folder: Path) -> None:  # noqa: F811
    """What does not fit into NOTIFY goes through the table."""
    with contextlib.ExitStack() as stack:
        entry = {"default": postgres.entry(folder)}
        nodes = Nodes({"BACKEND": "dwebsocket.groups.postgres", "TIMEOUT": 20.0}, entry)
        stack.callback(lambda: [node.clean_up() for node in nodes.all])
        one, two = nodes(), nodes()
        info = {"name": "ä" * 600 + "x" * 400}
        name = "room-" + "ä" * 190
        for node, tab in ((one, "anna"), (two, "bert")):
            node("open", tab, tab)
            node("join", tab, name)
        one("open", "carl", "carl")
        one("join_saying", "carl", name, info)
        eventually(lambda: ["user:carl", info, 1] in two("members", name))
        late = nodes()
        eventually(lambda: ["user:carl", info, 1] in late("members", name))
