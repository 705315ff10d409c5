"""What backends report of their members, on each backend, and the thread that does so."""

from __future__ import annotations

import gc
import threading
from typing import TYPE_CHECKING, Any

import pytest
from memory_backend import MemoryBackend

from dwebsocket import _core, group
from dwebsocket.groups import backends, process
from support.redis import Redis, settings
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Override = Callable[..., None]

KINDS = [
    "process",
    "local",
    "memory_backend.MemoryBackend",
    pytest.param("redis", marks=pytest.mark.needs("redis")),
]


@pytest.fixture(params=KINDS)
def entry(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[dict[str, Any]]:
    """Give the settings of a backend: three of ours, and one as others write it."""
    if request.param == "redis":
        with Redis() as server:
            yield settings(server.url)
    elif "." in request.param:
        yield {"BACKEND": f"{MemoryBackend.__module__}.{MemoryBackend.__name__}"}
    else:
        path = f"dwebsocket.groups.{request.param}"
        yield {"BACKEND": path, "RUNTIME_DIR": str(tmp_path)}


def join(name: str, capacity: int = 10) -> _core.Mailbox:
    """Give a member that reads nothing, and has room for about one message."""
    mailbox = _core.Mailbox(capacity, _core.Hub(), 1)
    assert backends.backend("default").add(name, mailbox, b"k" * 16)
    return mailbox


def slow(log: pytest.LogCaptureFixture) -> list[str]:
    """Give the groups of the slow members that were logged."""
    texts = [record.getMessage() for record in log.records if "groups.slow" in str(record.__dict__)]
    assert all("is slow and misses messages" in text for text in texts)
    return [text.partition("a member of ")[2].split()[0].strip("'") for text in texts]


def test_a_slow_member_is_logged_once(
    override: Override, caplog: pytest.LogCaptureFixture, entry: dict[str, Any]
) -> None:
    """With its group; one that has room is not."""
    override(WEBSOCKET_GROUPS={"default": {**entry, "SLOW": "drop_newest"}})
    with backends.replaced(backends.make):
        opened = [join("room"), join("room"), join("room", 1000), join("other")]
        for number in range(5):
            group("room").send(f"message {number}")
        eventually(lambda: slow(caplog) == ["room"] * 2)
        for name in ("room", "room", "other", "other"):
            group(name).send("message 6")
        eventually(lambda: slow(caplog) == ["room"] * 2 + ["other"])
        del opened


def threads() -> set[threading.Thread]:
    """Give the threads that report."""
    return {thread for thread in threading.enumerate() if thread.name == "dwebsocket-groups"}


def test_the_thread_ends_with_its_backend(override: Override) -> None:
    """At once: a suite of tests has another backend for each test."""
    override(WEBSOCKET_GROUPS={"default": {"BACKEND": "dwebsocket.groups.process"}})
    before = threads()
    with backends.replaced(process.Backend):
        member = join("room")
        [started] = threads() - before
        del member
    gc.collect()
    eventually(lambda: not started.is_alive())
