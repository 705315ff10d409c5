"""Subscribing for a connection that opens soon: the handshake does not wait for the server."""

# Fixtures are imported.
# ruff: noqa: F811

from __future__ import annotations

import errno
import threading
from typing import TYPE_CHECKING

import pytest
from postgres_nodes import folder, nodes  # noqa: F401

from dwebsocket import _core
from dwebsocket.compat import unpatched
from dwebsocket.conf.group_settings import BackendSettings
from dwebsocket.exceptions import GroupUnavailable
from dwebsocket.groups import backends
from dwebsocket.groups.backends import postgres, redis
from dwebsocket.groups.backends.node import Node
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from memory_backend import Switchboard
    from postgres_nodes import Nodes

NAMES = [f"user-{number}" for number in range(50)]
# A backend of another test may fail at the same time.
LOST = "Messages to users may not reach this process: groups of 'default': the switchboard"
# One reports what happens to members.
STARTED = ["dwebsocket-groups", "dwebsocket-subscribe"]


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Note the names of the threads that are started."""
    names: list[str] = []
    start = unpatched.start_thread

    def noted(name: str, target: Callable[[], None]) -> None:
        names.append(name)
        start(name, target)

    monkeypatch.setattr(unpatched, "start_thread", noted)
    return names


def test_one_thread_at_a_time(switchboard: Switchboard, started: list[str]) -> None:
    """Subscribes to all groups that are wanted meanwhile, each once, in order."""
    is_open = threading.Event()
    switchboard.on_subscribe = lambda name: is_open.wait(60)
    backend = backends.backend("default")
    for name in [*NAMES, *NAMES]:
        backend.hold_soon(name)
    eventually(lambda: switchboard.names("subscribe") == NAMES[:1])
    assert started == STARTED
    is_open.set()
    eventually(lambda: len(switchboard.names("subscribe")) >= len(NAMES), what="all are there")
    assert list(dict.fromkeys(switchboard.names("subscribe"))) == NAMES
    assert started == STARTED
    # The thread has ended, or goes on: later ones are subscribed to all the same.
    backend.hold_soon("later")
    eventually(lambda: switchboard.subscribers.get("later"), what="the later one is there")


def test_a_failure_does_not_end_it(
    switchboard: Switchboard, caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged, and the other groups are subscribed to; also with a broken backend."""

    def fail(name: str) -> None:
        if name == NAMES[1]:
            raise ZeroDivisionError("a mistake of the backend")

    switchboard.broken.add(NAMES[0])
    switchboard.on_subscribe = fail
    for name in NAMES:
        backends.backend("default").hold_soon(name)
    eventually(lambda: all(switchboard.subscribers.get(name) for name in NAMES[2:]))
    assert caplog.text.count(LOST) == 1
    assert caplog.text.count("ZeroDivisionError: a mistake of the backend") == 1


def test_each_outage_is_logged(switchboard: Switchboard, caplog: pytest.LogCaptureFixture) -> None:
    """Once: one that is over does not hide the next one."""
    backend = backends.backend("default")
    for outage in range(1, 3):
        switchboard.broken.add("room")
        for _ in range(2):
            backend.hold_soon("room")
            eventually(lambda: not backend._subscribing.is_working)
        assert caplog.text.count(LOST) == outage
        switchboard.broken.clear()
        backend.hold_soon("room")
        eventually(lambda: not backend._subscribing.is_working)


def test_a_system_without_threads(
    switchboard: Switchboard, monkeypatch: pytest.MonkeyPatch, started: list[str]
) -> None:
    """Raises for the handshake that needs one; the next one tries again."""

    def refuse(name: str, target: Callable[[], None]) -> None:
        raise RuntimeError("can't start new thread")

    backend = backends.backend("default")
    with monkeypatch.context() as without:
        without.setattr(unpatched, "start_thread", refuse)
        with pytest.raises(GroupUnavailable, match="the system gives no thread"):
            backend.hold_soon("room")
    backend.hold_soon("other")
    eventually(lambda: switchboard.subscribers.get("other"))
    assert started == STARTED


@pytest.mark.parametrize("lacking", ["thread", "descriptor"])
@pytest.mark.parametrize("kind", ["node", "postgres", "redis"])
def test_a_system_that_refuses(
    switchboard: Switchboard,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
    kind: str,
    lacking: str,
) -> None:
    """In each of the things that a backend starts. A later try is as good as the first one."""

    def refuse(*_: object, **__: object) -> None:
        if lacking == "thread":
            raise RuntimeError("can't start new thread")
        raise OSError(errno.EMFILE, "Too many open files")

    start: Callable[[str], object]
    if kind == "node":
        start = Node(backends.backend("default"), {}, "test").listen
    elif kind == "redis":
        start = redis.Backend(
            "default", BackendSettings(location=("redis://localhost:1",))
        ).hold_soon
    else:
        started = postgres.Backend("default", BackendSettings())
        request.addfinalizer(started.stop)
        start = started.hold_soon
    with monkeypatch.context() as without:
        if lacking == "thread":
            without.setattr(unpatched, "start_thread", refuse)
        else:
            without.setattr(_core, "Hub", refuse)
            without.setattr(_core, "Redis", refuse)
        with pytest.raises(GroupUnavailable, match=f"the system gives no {lacking}: "):
            start("room")
    start("room")


@pytest.mark.needs("postgresql")
@pytest.mark.xdist_group("groups postgres")
def test_postgres_starts_no_thread_but_the_one_that_listens(nodes: Nodes, tmp_path: Path) -> None:
    """It subscribes to all groups at once. When it cannot, that is logged."""
    node = nodes()
    assert node("hold_soon", *NAMES) == ["dwebsocket-groups"]
    eventually(lambda: node("is_listening"), what="it listens")
    assert node("hold_soon", *NAMES) == []
    away = nodes(on={"HOST": str(tmp_path)})
    assert away("hold_soon", "room") == ["dwebsocket-groups"]
    [line] = eventually(lambda: away("log"), what="it is logged")
    assert line.startswith("Messages to users may not reach this process: groups of 'default' at ")
