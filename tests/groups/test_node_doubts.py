"""Questions to processes that do not answer: few wait, and none for one that is gone."""

from __future__ import annotations

import dataclasses
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from dwebsocket import GroupUnavailable, clock
from dwebsocket.groups import backends
from dwebsocket.groups import node as nodes
from dwebsocket.groups.node import Doubtful, Gone, Node
from dwebsocket.testing import websockets_of_a_test
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

QUESTION = {"act": "ask"}


@pytest.fixture
def asking(monkeypatch: pytest.MonkeyPatch) -> Iterator[Node]:
    """Give the node of this process, for which doubts come early."""
    monkeypatch.setattr(nodes, "_DOUBTS_S", (0.01, 0.02, 0.03))
    with websockets_of_a_test():
        yield Node(backends.backend("default"), {}, "test")


def another(act: Callable[[Any], Any]) -> Node:
    """Start a node that answers questions by `act`."""
    other = Node(backends.backend("default"), {"ask": act}, "another")
    other.start()
    return other


def told(monkeypatch: pytest.MonkeyPatch, node: Node) -> list[str]:
    """Note the groups to which a node sends from now on."""
    names: list[str] = []
    tell = node._tell

    def note(name: str, message: dict[str, Any]) -> None:
        names.append(name)
        tell(name, message)

    monkeypatch.setattr(node, "_tell", note)
    return names


def test_one_that_is_gone_is_asked_once(asking: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """After that it is known."""
    names = told(monkeypatch, asking)
    for _ in range(10):
        with pytest.raises(Gone):
            asking.ask(b"gone..", QUESTION)
    assert len(names) == 1


def test_one_that_is_gone_is_found_out_within_a_short_timeout(
    asking: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before that is over: it would be doubtful for ever."""
    monkeypatch.setattr(nodes, "_DOUBTS_S", (10.0, 20.0, 30.0))
    settings = dataclasses.replace(asking._backend.settings, timeout=0.05)
    monkeypatch.setattr(asking._backend, "settings", settings)
    with pytest.raises(Gone):
        asking.ask(b"gone..", QUESTION)


def test_so_many_are_remembered(asking: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest one is asked again."""
    monkeypatch.setattr(nodes, "_MOST_GONE", 2)
    for number in (b"first.", b"second", b"third."):
        with pytest.raises(Gone):
            asking.ask(number, QUESTION)
    names = told(monkeypatch, asking)
    for number in (b"third.", b"second", b"first."):
        with pytest.raises(Gone):
            asking.ask(number, QUESTION)
    assert len(names) == 1


def test_one_question_waits_for_one_that_is_slow(
    asking: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others are told at once, until it has answered."""
    may_answer = threading.Event()
    other = another(lambda found: may_answer.wait(60))
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(asking.ask, other.number, QUESTION)
        try:
            eventually(lambda: other.number in asking._doubtful)
            names = told(monkeypatch, asking)
            for _ in range(10):
                with pytest.raises(Doubtful):
                    asking.ask(other.number, QUESTION)
            assert names == []
        finally:
            may_answer.set()
        assert first.result() is True
    assert asking.ask(other.number, QUESTION) is True


def test_many_questions_wait_for_one_that_lives_and_is_only_busy(
    asking: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some tenths of a second are nothing on a machine that has much to do."""
    monkeypatch.setattr(nodes, "_DOUBTS_S", (0.01, 60.0, 61.0))
    may_answer = threading.Event()
    counted = threading.Semaphore(0)
    count = asking._backend.count

    def note(name: str) -> int:
        counted.release()
        return count(name)

    monkeypatch.setattr(asking._backend, "count", note)
    other = another(lambda found: may_answer.wait(60))
    with ThreadPoolExecutor(3) as pool:
        asked = [pool.submit(asking.ask, other.number, QUESTION) for _ in range(3)]
        for _ in asked:
            assert counted.acquire(timeout=30)
        may_answer.set()
    assert [each.result() for each in asked] == [True] * 3


def test_of_those_that_begin_together_one_goes_on(asking: Node) -> None:
    """The others wait no longer than until there is a doubt."""
    may_answer = threading.Event()
    other = another(lambda found: may_answer.wait(60))
    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(asking.ask, other.number, QUESTION) for _ in range(4)]
        try:
            eventually(lambda: sum(each.done() for each in asked) == 3)
        finally:
            may_answer.set()
        found = [each.exception() for each in asked]
    assert sorted(map(str, map(type, found))) == sorted(map(str, [type(None), *[Doubtful] * 3]))


def test_one_that_lives_and_does_not_answer_is_left_alone_for_a_while(
    asking: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then one question waits again."""
    settings = dataclasses.replace(asking._backend.settings, timeout=0.05)
    monkeypatch.setattr(asking._backend, "settings", settings)
    may_answer = threading.Event()
    other = another(lambda found: may_answer.wait(60))
    try:
        with pytest.raises(GroupUnavailable, match="another process has not answered in time"):
            asking.ask(other.number, QUESTION)
        with pytest.raises(Doubtful):
            asking.ask(other.number, QUESTION)
    finally:
        may_answer.set()
    later = clock.now() + nodes._PAUSE_S
    monkeypatch.setattr(clock, "now", lambda: later)
    assert asking.ask(other.number, QUESTION) is True
