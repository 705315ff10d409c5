"""How a process ends: which code, over which window; decisions only, nothing is closed."""

from __future__ import annotations

import logging
import os
import signal
import socket
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from dwebsocket import _core
from dwebsocket.runners import shutdown
from dwebsocket.servers.contract import ShutdownPlan
from dwebsocket.servers.families import gunicorn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Override = Callable[..., None]


@pytest.fixture
def drained(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, str, float]]:
    """The calls that the engine would have got."""
    calls: list[tuple[int, str, float]] = []

    def drain(code: int, reason: str, window: float) -> float:
        calls.append((code, reason, window))
        return window

    monkeypatch.setattr(_core, "drain", drain)
    return calls


def leaving(shutdown_plan: Any, *, reloading: bool = False) -> float:
    """Let a process with this shutdown_plan end; give the time until the last client is closed."""
    process = shutdown._Shutdown()
    process._planner = (
        shutdown_plan if callable(shutdown_plan) else lambda *, terminated: shutdown_plan
    )
    process._reloading = reloading
    return process._depart_now()


@pytest.mark.usefixtures("drained")
def test_a_server_that_waits_gives_no_less_time_to_move(monkeypatch: pytest.MonkeyPatch) -> None:
    """Than one with a limit: uvicorn has none, and ten thousand connections take 13 seconds."""
    given: list[float] = []
    monkeypatch.setattr(shutdown.mover, "begin", lambda patience, *_, **__: given.append(patience))
    for plan in (ShutdownPlan(30, goes_on=True), ShutdownPlan(goes_on=True)):
        leaving(plan)
    limited, unlimited = given
    assert limited <= unlimited


class TestWindow:
    """The window that WEBSOCKET_DRAIN leads to."""

    @pytest.mark.parametrize(
        ("shutdown_plan", "drain", "expected"),
        [
            (ShutdownPlan(), 0, (1001, 0)),
            (ShutdownPlan(), 7, (1001, 7)),
            (ShutdownPlan(goes_on=True), 7, (1012, 7)),
            (ShutdownPlan(30, goes_on=True), 7, (1012, 7)),
            (ShutdownPlan(5, goes_on=True), 7, (1012, 3.5)),
            (ShutdownPlan(1), 7, (1001, 0)),
            (ShutdownPlan(0, goes_on=True), 7, (1012, 0)),
        ],
    )
    def test_is_cut_to_what_the_server_waits(
        self,
        override: Override,
        drained: list,
        shutdown_plan: ShutdownPlan,
        drain: float,
        expected: tuple[int, float],
    ) -> None:
        """Less a second for the close handshakes and half a second for the exit."""
        override(WEBSOCKET_DRAIN=drain)
        assert leaving(shutdown_plan) == expected[1]
        assert [(code, window) for code, _, window in drained] == [expected]

    def test_reload_of_the_development_server(self, override: Override, drained: list) -> None:
        """It goes on, though its server does not know."""
        override(WEBSOCKET_DRAIN=7)
        leaving(ShutdownPlan(0), reloading=True)
        assert drained == [(1012, "restarting", 0)]

    def test_setting_that_cannot_be(self, override: Override, drained: list) -> None:
        """The window is lost, the close frames are sent."""
        override(WEBSOCKET_DRAIN="long")
        leaving(ShutdownPlan(goes_on=True))
        assert drained == [(1012, "restarting", 0)]

    def test_server_that_has_changed(
        self, override: Override, drained: list, caplog: pytest.LogCaptureFixture
    ) -> None:
        """A missing private part is logged, and the close frames are sent."""

        def shutdown_plan(*, terminated: bool) -> ShutdownPlan:
            raise AttributeError("'Worker' object has no attribute 'cfg'")

        override(WEBSOCKET_DRAIN=2)
        assert leaving(shutdown_plan) == 2
        assert [code for code, _, _ in drained] == [1001]
        assert "way to end a process is not known" in caplog.text


class TestWarning:
    """Logged with the first connection, not when it is too late."""

    def warn(self, shutdown_plan: ShutdownPlan) -> None:
        """Begin with this shutdown_plan."""
        shutdown._warn_of_a_long_window([shutdown_plan])

    def test_window_that_is_too_long(
        self, override: Override, caplog: pytest.LogCaptureFixture
    ) -> None:
        """The record has the setting, its limit and the resulting window."""
        override(WEBSOCKET_DRAIN=20)
        self.warn(ShutdownPlan(12, "gunicorn's --graceful-timeout"))
        assert [(record.levelno, record.getMessage()) for record in caplog.records] == [
            (
                logging.WARNING,
                "WEBSOCKET_DRAIN is 20 s, but gunicorn's --graceful-timeout ends a worker after "
                "12 s: its WebSockets will be closed within 10.5 s. Raise the one or lower the "
                "other.",
            )
        ]

    @pytest.mark.parametrize(
        "shutdown_plan", [ShutdownPlan(), ShutdownPlan(0), ShutdownPlan(30, "a limit")]
    )
    def test_window_without_a_warning(
        self, override: Override, caplog: pytest.LogCaptureFixture, shutdown_plan: ShutdownPlan
    ) -> None:
        """No warning is logged."""
        override(WEBSOCKET_DRAIN=20)
        self.warn(shutdown_plan)
        assert caplog.records == []


class Worker:
    """The attributes of gunicorn's workers that are used."""

    def __init__(self, **cfg: Any) -> None:
        self.cfg = SimpleNamespace(**{"graceful_timeout": 30, "timeout": 30, "workers": 2, **cfg})
        self.nr, self.max_requests = 5, 100
        self.ppid = os.getppid()
        self.sockets: list[socket.socket] = []

    def handle_exit(self, number: int, frame: Any) -> None:
        """The handler of SIGTERM."""


@pytest.fixture
def worker() -> Iterator[Worker]:
    """A worker whose handler is installed."""
    worker = Worker()
    before = signal.signal(signal.SIGTERM, worker.handle_exit)
    yield worker
    signal.signal(signal.SIGTERM, before)


class TestGunicorn:
    """The end of a worker, as far as the worker can know."""

    @pytest.mark.parametrize(
        ("cfg", "expected"),
        [
            ({}, (15, "half of gunicorn's --timeout")),
            ({"timeout": 0}, (30, "gunicorn's --graceful-timeout")),
            ({"timeout": 120, "graceful_timeout": 8}, (8, "gunicorn's --graceful-timeout")),
        ],
    )
    def test_timeout(self, worker: Worker, cfg: dict, expected: tuple[float, str]) -> None:
        """The lesser of the arbiter's graceful timeout and its timeout for a hung worker."""
        vars(worker.cfg).update(cfg)
        shutdown_plan = gunicorn.shutdown_plan()(terminated=True)
        assert (shutdown_plan.timeout_s, shutdown_plan.limit) == expected

    @pytest.mark.parametrize(
        ("served", "workers", "timeout"), [(100, 2, 15), (100, 1, 0), (99, 2, 0)]
    )
    def test_end_without_a_signal(
        self, worker: Worker, served: int, workers: int, timeout: float
    ) -> None:
        """A worker at its --max-requests may wait if there are others; otherwise it hurries."""
        worker.nr, worker.cfg.workers = served, workers
        assert gunicorn.shutdown_plan()(terminated=False).timeout_s == timeout

    def test_parent_that_listens_or_not(self, worker: Worker) -> None:
        """A parent that holds the same socket goes on; one without it stops."""
        with socket.socket() as ours:
            worker.sockets = [ours]
            assert not gunicorn.shutdown_plan()(terminated=True).goes_on

    def test_parent_that_has_gone(self, worker: Worker) -> None:
        """No process goes on."""
        depart = gunicorn.shutdown_plan()
        worker.ppid = 1 if os.getppid() != 1 else 2
        assert not depart(terminated=True).goes_on

    def test_parent_of_which_nothing_can_be_seen(
        self, worker: Worker, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It is taken to go on."""
        depart = gunicorn.shutdown_plan()
        nowhere = 2**22 + 1
        worker.ppid = nowhere
        monkeypatch.setattr(os, "getppid", lambda: nowhere)
        assert depart(terminated=True).goes_on

    @pytest.mark.parametrize(
        ("there", "wanted", "heirs"),
        [
            (1, 1, "of others"),
            # Another one has ended, and its successor has not begun.
            (1, 2, "soon"),
            (2, 2, "soon"),
            # Those of a reload have begun.
            (2, 1, "to come"),
            (4, 2, "to come"),
            # It cannot be seen.
            (0, 2, "to come"),
        ],
    )
    def test_heirs(
        self, worker: Worker, monkeypatch: pytest.MonkeyPatch, there: int, wanted: int, heirs: str
    ) -> None:
        """By the workers that there are, and should be."""
        worker.cfg.workers = wanted
        depart = gunicorn.shutdown_plan()
        worker.ppid = 2**22 + 1
        monkeypatch.setattr(os, "getppid", lambda: worker.ppid)
        monkeypatch.setattr(gunicorn, "children_of", lambda _: list(range(there)))
        assert depart(terminated=True).heirs == heirs

    def test_process_of_another_kind(self) -> None:
        """Without a worker nothing is known."""
        assert gunicorn.shutdown_plan()(terminated=True) == ShutdownPlan()


class TestDrain:
    """`dwebsocket.drain()`, as far as it can be called in a process that goes on."""

    @pytest.mark.parametrize("bad", [-1, "5", True, float("nan")])
    def test_arguments(self, drained: list, bad: Any) -> None:
        """A value that is no time is refused, and no drain begins."""
        for keywords in ({"window": bad}, {"timeout": bad}):
            with pytest.raises(ValueError, match="must be a number of seconds, 0 or more"):
                shutdown.drain(**keywords)
        assert drained == []

    def test_default_window(self, override: Override, drained: list) -> None:
        """That of the settings."""
        override(WEBSOCKET_DRAIN=3)
        assert shutdown.drain(timeout=10)
        assert drained == [(1012, "restarting", 3.0)]

    def test_open_connection(self, drained: list, open_websocket: Callable[..., Any]) -> None:
        """While one is open the time runs out."""
        live = open_websocket()
        assert not shutdown.drain(0, timeout=0.05)
        live.websocket.close()
        live.client.closing()
        live.client.vanish()
        assert shutdown.drain(0, timeout=10)
