"""How the processes of a site tell each other of presence by PostgreSQL."""

from __future__ import annotations

from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

from dwebsocket.conf import group_settings
from dwebsocket.groups.backends.postgres import Backend, payload


def test_short_and_long_ones_keep_their_order(monkeypatch: Any) -> None:
    """A long one goes by the table, a short one by NOTIFY; the last part of an answer ends it."""
    made = Backend("default", group_settings.BackendSettings("dwebsocket.groups.postgres"))
    found: list[str] = []

    def announce(texts: list[str]) -> Future[int]:
        for text in texts:
            name, _ = payload.unpack(text.partition(".")[2]) or ("", b"")
            found.append(name)
        told: Future[int] = Future()
        told.set_result(1)
        return told

    listener = SimpleNamespace(listening=lambda: None, announce=announce)
    monkeypatch.setattr(made, "_listener", listener)
    monkeypatch.setattr(made, "publish", lambda name, envelope: found.append(name))
    sizes = {"a": 1, "b": payload.LONGEST, "c": 1, "d": 2, "e": payload.LONGEST, "f": 3}
    made.publish_all([(name, bytes(size)) for name, size in sizes.items()])
    assert found == list(sizes)
