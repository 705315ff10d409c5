"""Questions of one process to another one, over a server that others may use, too."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from memory_backend import MemoryBackend, Switchboard

from dwebsocket.conf.group_settings import BackendSettings
from dwebsocket.groups.backends import contract
from dwebsocket.groups.backends import node as nodes

if TYPE_CHECKING:
    import pytest


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
