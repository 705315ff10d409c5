"""Questions to processes that do not answer: few wait, and none for one that is gone."""

from __future__ import annotations

import dataclasses
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from dwebsocket import GroupUnavailable
from dwebsocket.groups import backends
from dwebsocket.groups.backends import node as nodes
from dwebsocket.groups.backends.node import Doubtful, Gone, Node
from dwebsocket.telemetry import clock
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


def test_one_that_was_stopped_or_cut_off_is_asked_again(
    asking: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was taken for gone, as the backend did not know of it."""
    other = another(lambda found: "here")
    with monkeypatch.context() as cut_off:
        cut_off.setattr(asking._backend, "count", lambda name: 0)
        cut_off.setattr(asking, "_tell", lambda name, message: None)
        with pytest.raises(Gone):
            asking.ask(other.number, QUESTION)
    later = clock.now() + nodes._PAUSE_S
    monkeypatch.setattr(clock, "now", lambda: later)
    assert asking.ask(other.number, QUESTION) == "here"


def test_one_that_is_gone_is_found_out_within_a_short_timeout(
    asking: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before that is over: it would be doubtful for ever."""
    monkeypatch.setattr(nodes, "_DOUBTS_S", (10.0, 20.0, 30.0))
    settings = dataclasses.replace(asking._backend.settings, timeout=1.0)
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


def test_one_question_waits_for_numbers_that_nobody_knows(
    asking: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client may make up as many as it likes, and each would occupy a thread of the server."""
    monkeypatch.setattr(nodes, "_DOUBTS_S", (0.01, 1.0, 2.0))
    with ThreadPoolExecutor(6) as pool:
        asked = [pool.submit(asking.ask, b"made%02d" % each, QUESTION) for each in range(6)]
        found = [each.exception() for each in asked]
    assert sorted(map(str, map(type, found))) == sorted(map(str, [Gone, *[Doubtful] * 5]))
    with pytest.raises(Gone):
        asking.ask(b"others", QUESTION)


def test_one_that_lives_and_does_not_answer_is_left_alone_for_a_while(
    asking: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then one question waits again."""
    settings = dataclasses.replace(asking._backend.settings, timeout=1.0)
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


class TestAllAreAsked:
    """One of those that listen to a group hangs."""

    GROUP = "asked"
    SHORT_S, LONG_S = 1.0, 60.0

    @pytest.fixture
    def may_answer(self, asking: Node) -> Iterator[threading.Event]:
        """Three nodes listen; of one the thread hangs until then."""
        event = threading.Event()
        acts = (lambda found: 1, lambda found: 2, lambda found: event.wait(60) and 3)
        # Kept: a node that nobody has any more listens no longer.
        others = [another(act) for act in acts]
        for other in others:
            other.listen(self.GROUP)
        yield event
        event.set()

    def ask(self, node: Node, timeout: float = SHORT_S) -> tuple[list[Any], int]:
        """Ask all of them; the answers in order."""
        answers, asked = node.ask_all(self.GROUP, QUESTION, timeout)
        return sorted(answers), asked

    def test_it_costs_one_answer(self, asking: Node, may_answer: threading.Event) -> None:
        """Then those of the others are enough. It is still among those that were asked."""
        assert self.ask(asking) == ([1, 2], 3)
        begun = clock.now()
        for _ in range(6):
            assert self.ask(asking) == ([1, 2], 3)
        assert clock.now() - begun < 3 * self.SHORT_S

    def test_who_asks_for_longer_waits(self, asking: Node, may_answer: threading.Event) -> None:
        """What was too long for one question need not be so for another."""
        assert self.ask(asking) == ([1, 2], 3)
        with ThreadPoolExecutor(1) as pool:
            asked = pool.submit(self.ask, asking, self.LONG_S)
            may_answer.set()
            assert asked.result() == ([1, 2, 3], 3)

    def test_one_that_answers_again(self, asking: Node, may_answer: threading.Event) -> None:
        """Is waited for again, also when it is slow."""
        assert self.ask(asking) == ([1, 2], 3)
        may_answer.set()
        eventually(lambda: not asking._without)
        assert self.ask(asking, self.LONG_S) == ([1, 2, 3], 3)

    def test_one_that_comes_meanwhile(self, asking: Node, may_answer: threading.Event) -> None:
        """Is waited for as the others are."""
        assert self.ask(asking) == ([1, 2], 3)
        other = another(lambda found: 4)
        other.listen(self.GROUP)
        assert self.ask(asking) == ([1, 2, 4], 4)
