"""Members that come back while thousands of messages a second pass lose none and get none twice."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from history_backends import HistoryEntry, history_entry, redis_server
from test_local import Nodes, nodes

if TYPE_CHECKING:
    from collections.abc import Callable

    from node_process import Node

__all__ = ["history_entry", "nodes", "redis_server"]

pytestmark = pytest.mark.every("publishes for seconds without a pause")

RATE, SECONDS = 10_000, 3
# Each time a member comes back it may have missed all of what passes in a second.
HISTORY = {"room": {"size": 500_000, "seconds": 300}}


@pytest.fixture
def start(nodes: Nodes, history_entry: HistoryEntry) -> Callable[[str], Node]:
    """Start a process with one of the backends."""
    entries: dict[str, dict[str, object]] = {}

    def node(name: str) -> Node:
        if name not in entries:
            entries[name] = history_entry(name)
        return nodes(**{**entries[name], "HISTORY": HISTORY})

    return node


def test_in_one_process(start: Callable[[str], Node]) -> None:
    """Its own thread publishes."""
    node = start("process")
    joins, since, sent = node("come_and_go", "room", node("position", "room"), SECONDS, RATE)
    assert_came_often(joins, sent)
    missed = node("come_back", "room", since)
    assert int(since.partition("-")[2]) + len(missed) == sent


@pytest.mark.parametrize(
    "backend", ["local", pytest.param("redis", marks=pytest.mark.needs("redis"))]
)
def test_in_several_processes(start: Callable[[str], Node], backend: str) -> None:
    """Two publish, and two come and go."""
    publishers, comers = [start(backend) for _ in range(2)], [start(backend) for _ in range(2)]
    begin = comers[0]("position", "room")
    for comer in comers:
        comer.begin("come_and_go", "room", begin, SECONDS)
    for publisher in publishers:
        publisher.begin("stream", "room", RATE // 2, SECONDS)
    sent = sum(publisher.answer() for publisher in publishers)
    for comer in comers:
        joins, since, _ = comer.answer()
        assert_came_often(joins, sent)
        missed = comer("come_back", "room", since)
        assert int(since.partition("-")[2]) + len(missed) == sent


def assert_came_often(joins: int, sent: int) -> None:
    """It was worth trying, however busy the machine is."""
    print(f"{joins} joins, {sent / SECONDS:.0f} messages a second")
    assert joins > 3
    assert sent > 1000
