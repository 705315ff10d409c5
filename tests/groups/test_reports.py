"""What backends report of their members, on each backend, and the thread that does so."""

from __future__ import annotations

import gc
import threading
from typing import TYPE_CHECKING, Any
from weakref import ref

import pytest
from django.test import override_settings
from memory_backend import MemoryBackend

from dwebsocket import _core, group
from dwebsocket.compat import unpatched
from dwebsocket.conf.group_settings import BackendSettings
from dwebsocket.groups import backends, reports
from dwebsocket.groups.backends import process
from dwebsocket.groups.history import recorded
from dwebsocket.groups.history.recorded import HistoryBackend
from support.redis import Redis, settings
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Override = Callable[..., None]
    Log = pytest.LogCaptureFixture

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


@pytest.mark.parametrize("error", [ValueError, SystemExit])
def test_the_thread_goes_on_after_an_event_that_fails(
    override: Override,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    error: type[BaseException],
) -> None:
    """The next event is reported."""
    entry = {"BACKEND": "dwebsocket.groups.process", "SLOW": "drop_newest"}
    override(WEBSOCKET_GROUPS={"default": entry})
    reported: list[list[str]] = []

    def fail_first(backend: object, kind: str, texts: list[str]) -> None:
        reported.append(texts)
        if len(reported) == 1:
            raise error

    monkeypatch.setattr(reports, "report", fail_first)
    with backends.replaced(process.Backend):
        members = [join("one"), join("two")]
        for name in ("one", "two"):
            for number in range(5):
                group(name).send(f"message {number}")
        eventually(lambda: reported == [["one"], ["two"]])
        del members
    assert "An event of groups could not be reported" in caplog.text


def test_a_task_that_has_failed_is_logged(override: Override, caplog: Log) -> None:
    """As an error of ours."""
    override(WEBSOCKET_GROUPS={"default": {"BACKEND": "dwebsocket.groups.process"}})
    reports.report(backends.backend("default"), "restarted", ["handing out"])
    (record,) = caplog.records
    assert record.getMessage() == "Groups of 'default': handing out failed, and began anew"
    assert (record.levelname, vars(record)["event"]) == ("ERROR", "groups.restarted")


def test_a_history_that_cannot_be_read_is_read_again(
    monkeypatch: pytest.MonkeyPatch, caplog: Log
) -> None:
    """After any error: no other thread hands out the missed messages. It is logged once."""
    backend = HistoryBackend("default", BackendSettings())
    read: list[str] = []

    def catch_up(name: str) -> None:
        read.append(name)
        if len(read) < 4:
            raise ValueError("broken")

    monkeypatch.setattr(backend, "catch_up", catch_up)
    monkeypatch.setattr(recorded, "_RETRY_S", 0.001)
    backend.catch_up_soon("room")
    eventually(lambda: not backend._catching_up.is_working, what="it is read")
    assert (read, len(caplog.records)) == (["room"] * 4, 1)


def test_histories_that_no_thread_reads_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Are read by the next thread that the system gives: all of them."""
    backend = HistoryBackend("default", BackendSettings())
    read: list[str] = []

    def refuse(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(backend, "catch_up", read.append)
    with monkeypatch.context() as without:
        without.setattr(unpatched, "start_thread", refuse)
        with pytest.raises(RuntimeError):
            backend.catch_up_soon("one", "two")
    backend.catch_up_soon("three")
    eventually(lambda: not backend._catching_up.is_working, what="all are read")
    assert read == ["one", "two", "three"]


def test_overridden_settings_keep_few_backends(override: Override) -> None:
    """Those used last; one that is in use below all others stays the same."""
    made = backends.Backends(backends.make)
    kind = {"BACKEND": "dwebsocket.groups.process"}
    with backends.swapped(made):
        override(WEBSOCKET_GROUPS={"default": kind, "other": kind})
        below, other = backends.backend("default"), backends.backend("other")
        dropped = None
        for number in range(40):
            entry = {**kind, "PREFIX": f"number {number}"}
            with override_settings(WEBSOCKET_GROUPS={"default": entry, "other": kind}):
                above = backends.backend("default")
                assert above is backends.backend("default")
                assert above is not below
                dropped = dropped or ref(above)
            assert backends.backend("default") is below
            assert backends.backend("other") is other
        assert len(made._made) < 15
        gc.collect()
        assert dropped is not None
        assert dropped() is None
