"""Questions of one process to another one, over a server that others may use, too."""

from __future__ import annotations

import json
import threading
import time
from types import SimpleNamespace
from typing import Any

import pytest
from memory_backend import MemoryBackend, Switchboard

from dwebsocket import _core
from dwebsocket.conf.group_settings import BackendSettings
from dwebsocket.groups.backends import contract
from dwebsocket.groups.backends import node as nodes
from dwebsocket.handshake.fallback import forwarding
from dwebsocket.telemetry import clock
from support.waiting import eventually


class Kept(MemoryBackend):
    """One whose envelopes another user of the server keeps."""

    def __init__(self, board: Switchboard) -> None:
        super().__init__("default", BackendSettings(), board)
        self.kept: list[tuple[str, bytes]] = []

    def publish(self, name: str, envelope: bytes) -> None:
        """Publish an envelope."""
        self.kept.append((name, envelope))
        super().publish(name, envelope)


def test_question_that_comes_again_after_five_minutes(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing is done for it, and the log says so once."""
    closed: list[int] = []
    acts: dict[str, Any] = {"close": lambda asked: closed.append(asked["user"])}
    backend = Kept(Switchboard())
    one, two = (nodes.Node(backend, acts, "test") for _ in range(2))
    two.start()
    one.ask(two.number, {"act": "close", "user": 7})
    later = SimpleNamespace(time=lambda: time.time() + 301, sleep=time.sleep)
    for module in (nodes, contract):
        monkeypatch.setattr(module, "time", later)
    for _ in range(2):
        for envelope in list(backend.kept):
            MemoryBackend.publish(backend, *envelope)
    # What comes behind it is answered.
    one.ask(two.number, {"act": "close", "user": 8})
    assert closed == [7, 8]
    assert len([text for text in caplog.messages if "is ignored" in text]) == 1


class Losing(MemoryBackend):
    """One that loses the envelopes with these numbers, from 1 on."""

    def __init__(self, *lost: int) -> None:
        super().__init__("default", BackendSettings(timeout=1000.0), Switchboard())
        self.lost = lost
        self.published = 0

    def publish(self, name: str, envelope: bytes) -> None:
        """Publish an envelope, or lose it."""
        self.published += 1
        if self.published not in self.lost:
            super().publish(name, envelope)


@pytest.mark.parametrize("lost", [1, 2], ids=["the question", "its answer"])
def test_what_was_lost_while_the_other_one_was_cut_off_is_asked_again(lost: int) -> None:
    """Long before the timeout, without a word of the backend."""
    backend = Losing(lost)
    one, two = (nodes.Node(backend, {"act": lambda asked: "done"}, "test") for _ in range(2))
    two.start()
    assert one.ask(two.number, {"act": "act"}) == "done"
    assert backend.published > lost


def test_a_question_is_asked_again_at_an_interruption() -> None:
    """Its answer may have been lost. And nobody is doubtful any more."""
    backend = Losing(*range(1000))
    one, two = (nodes.Node(backend, {"act": lambda asked: "done"}, "test") for _ in range(2))
    two.start()
    one._doubtful[b"others"] = clock.now() + 1000
    answers: list[Any] = []
    thread = threading.Thread(target=lambda: answers.append(one.ask(two.number, {"act": "act"})))
    thread.start()
    eventually(lambda: backend.published > 0 and one._answers)
    backend.lost = ()
    nodes.note_interruption(backend)
    thread.join(60)
    assert answers == ["done"]
    assert b"others" not in one._doubtful


def test_a_held_poll_gives_way_at_an_interruption() -> None:
    """Its answer may have been lost: the client polls again, and gets what it has not."""
    backend = MemoryBackend("default", BackendSettings(), Switchboard())
    one = forwarding.Node(backend)
    one.ask = lambda *question: "held"  # type: ignore[method-assign]
    pending, hub = _core.PendingPoll(), _core.Hub()
    pending.watch(hub, 1)
    assert one.poll(b"other.", b"other.key", 7, pending, 25.0) == "held"
    assert pending.take() is None
    nodes.note_interruption(backend)
    assert json.loads(pending.take() or b"{}") == {"n": 7, "events": []}
