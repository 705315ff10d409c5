"""Presence across processes: one suite for each backend that reaches other processes."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from node_process import Node
from presence_backends import PRESENCE_BACKENDS, folder, presence_entry, redis_server  # noqa: F401

from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from presence_backends import PresenceEntry

pytestmark = pytest.mark.extended("many processes come and go")

NODE = Path(__file__).with_name("presence_node.py")
# Longer than anything takes on a busy machine that has not to wait for it.
LONG = 3600.0

Start = Callable[[], Node]


class Nodes:
    """The processes of a test."""

    def __init__(self, backend: dict[str, Any], databases: dict[str, Any]) -> None:
        self.backend = backend
        self.databases = databases
        self.grace = LONG
        self.secret = "secret"
        self.all: list[Node] = []

    def __call__(self) -> Node:
        """Start one."""
        presence = {"room-*": {"grace": self.grace}}
        groups = {"default": {**self.backend, "PRESENCE": presence}}
        own = {"databases": self.databases, "secret": self.secret}
        node = Node(NODE, {"groups": groups, **own})
        self.all.append(node)
        return node


@pytest.fixture(params=PRESENCE_BACKENDS)
def start(
    request: pytest.FixtureRequest,
    presence_entry: PresenceEntry,  # noqa: F811
) -> Iterator[Nodes]:
    """Start processes that share groups, with each backend."""
    nodes = Nodes(*presence_entry(request.param))
    yield nodes
    for node in nodes.all:
        node.clean_up()


def members(node: Node) -> dict[str, int]:
    """Give the connections of each user, as a process knows them."""
    return {key: connections for key, _, connections in node("members")}


def test_every_process_knows_all_users(start: Nodes) -> None:
    """Also one that has none itself, and one that starts later."""
    one, two, idle = start(), start(), start()
    anna, bert = one("come", "a", "anna"), two("come", "b", "bert")
    for node in (one, two, idle, start()):
        eventually(lambda node=node: members(node) == {anna: 1, bert: 1})


def test_many_tabs_of_one_user(start: Nodes) -> None:
    """In several processes: they are one member, and joining is told once."""
    one, two, three = start(), start(), start()
    watcher = one("come", "watcher", "watcher", None, True)
    anna = one("come", "1", "anna")
    two("come", "2", "anna")
    two("come", "3", "anna")
    assert one("told", "watcher", 1) == [["joined", anna]]
    for node in (one, two, three):
        eventually(lambda node=node: members(node) == {watcher: 1, anna: 3})
    two("close", "2")
    one("close", "1")
    eventually(lambda: members(three) == {watcher: 1, anna: 1})
    bert = three("come", "b", "bert")
    assert one("told", "watcher", 1) == [["joined", bert]]


def test_the_latest_info_counts(start: Nodes) -> None:
    """Of all tabs that say something; when that tab ends, that of the one before."""
    one, two = start(), start()

    def infos() -> list[Any]:
        return [info for node in (one, two) for _, info, _ in node("members")]

    one("come", "1", "anna", {"name": "one"})
    eventually(lambda: infos() == [{"name": "one"}] * 2)
    two("come", "2", "anna", {"name": "two"})
    eventually(lambda: infos() == [{"name": "two"}] * 2)
    one("come", "3", "anna")
    eventually(lambda: members(one) == members(two) == {"user:anna": 3})
    assert infos() == [{"name": "two"}] * 2
    two("close", "2")
    eventually(lambda: infos() == [{"name": "one"}] * 2)
    one("close", "1")
    one("close", "3")
    eventually(lambda: members(two) == {"user:anna": 0})
    eventually(lambda: infos() == [{"name": "one"}] * 2)


def test_since_is_the_first_of_all(start: Nodes) -> None:
    """Every process gives the same."""
    one, two = start(), start()
    one("come", "1", "anna")
    eventually(lambda: len(members(two)) == 1)
    two("come", "2", "anna")
    one("close", "1")
    eventually(lambda: members(one) == members(two) == {"user:anna": 1})
    eventually(lambda: one("since") == two("since"))


def test_coming_back_within_the_grace(start: Nodes) -> None:
    """To another process: the user neither leaves nor joins, and is there meanwhile."""
    one, two = start(), start()
    watcher = two("come", "watcher", "watcher", None, True)
    anna = one("come", "1", "anna")
    eventually(lambda: members(one) == {watcher: 1, anna: 1})
    since = one("since")
    one("close", "1")
    eventually(lambda: members(two) == {watcher: 1, anna: 0})
    three = start()
    eventually(lambda: members(three) == {watcher: 1, anna: 0})
    two("come", "2", "anna")
    eventually(lambda: members(one) == members(two) == {watcher: 1, anna: 1})
    eventually(lambda: one("since") == since)
    bert = one("come", "3", "bert")
    assert two("told", "watcher", 2) == [["joined", anna], ["joined", bert]]


def test_leaving(start: Nodes) -> None:
    """All processes tell it when the grace is over, and one of them sends the signal."""
    start.grace = 0.5
    one, two, three = start(), start(), start()
    for node in (two, three):
        node("come", "watcher", "watcher", None, True)
    anna = one("come", "1", "anna")
    one("close", "1")
    for node in (two, three):
        assert node("told", "watcher", 2) == [["joined", anna], ["left", anna]]
    eventually(lambda: anna not in members(one))
    eventually(lambda: ["left", anna] in one("signals"))
    assert one("signals") == [["joined", anna], ["left", anna]]
    assert ["left", anna] not in two("signals") + three("signals")


def test_a_killed_process(start: Nodes) -> None:
    """Its users stay for the grace, and leave then; one of the others sends the signal."""
    start.grace = 1.0
    one, two, three = start(), start(), start()
    for node in (two, three):
        node("come", "watcher", "watcher", None, True)
    anna = one("come", "1", "anna")
    for node in (two, three):
        eventually(lambda node=node: anna in members(node))
    both = one("come", "2", "both")
    two("come", "3", "both")
    eventually(lambda: members(three).get(both) == 2)
    one.kill()
    for node in (two, three):
        assert node("told", "watcher", 3) == [["joined", anna], ["joined", both], ["left", anna]]
        eventually(lambda node=node: members(node) == {"user:watcher": 2, both: 1})
    eventually(lambda: ["left", anna] in two("signals") + three("signals"))
    assert (two("signals") + three("signals")).count(["left", anna]) == 1


def test_users_of_a_killed_process_come_back(start: Nodes) -> None:
    """To another one, within the grace."""
    one, two = start(), start()
    watcher = two("come", "watcher", "watcher", None, True)
    anna = one("come", "1", "anna")
    eventually(lambda: members(two) == {watcher: 1, anna: 1})
    one.kill()
    eventually(lambda: members(two) == {watcher: 1, anna: 0})
    two("come", "2", "anna")
    assert members(two) == {watcher: 1, anna: 1}
    bert = two("come", "3", "bert")
    assert two("told", "watcher", 2) == [["joined", anna], ["joined", bert]]


def test_a_process_that_ends(start: Nodes) -> None:
    """As one that is reloaded: its users can come back to the next one."""
    one, two = start(), start()
    watcher = two("come", "watcher", "watcher", None, True)
    anna = one("come", "1", "anna")
    eventually(lambda: anna in members(two))
    one.end()
    eventually(lambda: members(two) == {watcher: 1, anna: 0})
    three = start()
    three("come", "1", "anna")
    eventually(lambda: members(two) == members(three) == {watcher: 1, anna: 1})


def test_a_process_that_is_stopped_for_a_while(start: Nodes) -> None:
    """Its users are there again when it goes on, as is what has changed meanwhile."""
    one, two = start(), start()
    anna = one("come", "1", "anna")
    eventually(lambda: members(two) == {anna: 1})
    one.process.send_signal(signal.SIGSTOP)
    bert = two("come", "2", "bert")
    one.process.send_signal(signal.SIGCONT)
    eventually(lambda: members(one) == members(two) == {anna: 1, bert: 1})


def test_many_users_at_once(start: Nodes) -> None:
    """Each is told once, in all processes, and nobody of himself."""
    nodes = [start() for _ in range(3)]
    each = 200
    for node in nodes:
        node("come", "watcher", "watcher", None, True)
    for number, node in enumerate(nodes):
        node.begin("come_many", number * each, each)
    for node in nodes:
        assert node.answer() == "came"
    users = {f"user:{number}" for number in range(len(nodes) * each)}
    for node in nodes:
        told = node("told", "watcher", len(users))
        assert {event for event, _ in told} == {"joined"}
        assert sorted(key for _, key in told) == sorted(users)
        everyone = {"user:watcher": 3, **dict.fromkeys(users, 1)}
        eventually(lambda node=node, everyone=everyone: members(node) == everyone)


@pytest.mark.parametrize(
    "start",
    [
        "local",
        pytest.param("redis", marks=pytest.mark.needs("redis")),
        pytest.param(
            "postgres",
            marks=[pytest.mark.needs("postgresql"), pytest.mark.every("tells it as redis does")],
        ),
    ],
    indirect=True,
)
def test_first_tabs_that_open_together(start: Nodes) -> None:
    """In three processes: each arrival is told once, by one of them."""
    nodes = [start() for _ in range(3)]
    users = {f"user:{number}" for number in range(80)}
    for node in nodes:
        node("come", "watcher", "watcher", None, True)
    for node, how in zip(nodes, ("come_many", "come_many", "acome_many"), strict=True):
        node.begin(how, 0, len(users))
    for node in nodes:
        assert node.answer() == "came"
    for node in nodes:
        told = node("told", "watcher", len(users))
        assert sorted(told) == sorted(["joined", user] for user in users)
    joined = [key for node in nodes for event, key in node("signals") if event == "joined"]
    assert sorted(joined) == sorted([*users, "user:watcher"])


@pytest.mark.parametrize(
    "start",
    [
        pytest.param("redis", marks=pytest.mark.needs("redis")),
        *(
            pytest.param(name, marks=[*marks, pytest.mark.every("tells it as redis does")])
            for name, marks in (("local", []), ("postgres", [pytest.mark.needs("postgresql")]))
        ),
    ],
    indirect=True,
)
def test_last_tabs_that_end_together(start: Nodes) -> None:
    """In two processes: each shutdown_plan is told once, by one of them or by a third."""
    start.grace = 0.5
    nodes = [start() for _ in range(3)]
    nodes[2]("come", "watcher", "watcher", None, True)
    users = {f"user:{number}" for number in range(40)}
    for node in nodes[:2]:
        node("come_many", 0, len(users))
    both = {"user:watcher": 1, **dict.fromkeys(users, 2)}
    for node in nodes:
        eventually(lambda node=node: members(node) == both)
    for node in nodes[:2]:
        node.begin("close_many", 0, len(users))
    for node in nodes[:2]:
        assert node.answer() == "gone"
    told = nodes[2]("told", "watcher", 2 * len(users))
    assert sorted(key for event, key in told if event == "left") == sorted(users)

    def left() -> list[str]:
        return sorted(key for node in nodes for event, key in node("signals") if event == "left")

    eventually(lambda: set(left()) == users, what="all shutdown_plans are told")
    assert left() == sorted(users)
