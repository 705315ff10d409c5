"""What differs between Linux, macOS and Windows, as far as Python sees it."""

from __future__ import annotations

import asyncio
import os
import select
import signal
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dwebsocket import _core
from dwebsocket.compat import system, transports, unpatched
from dwebsocket.groups.backends import local
from dwebsocket.servers.families import gevent
from support.waiting import eventually

# macOS's own, for a user whose number is as long as those of companies' directories.
MAC_TEMPORARY = "/var/folders/zz/zyxvpxvq6csfxvn_n0000000000000/T"
MAC_USER = 1_234_567_890
MAC_LONGEST_ADDRESS = 103


@pytest.fixture
def without_epoll(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on macOS."""
    monkeypatch.delattr(select, "epoll")


def test_poller_is_epoll_where_there_is_one() -> None:
    """It costs the same however many descriptors it watches."""
    poller = unpatched.poller()
    assert isinstance(poller, select.epoll)
    poller.close()


@pytest.mark.usefixtures("without_epoll")
def test_poll_has_the_methods_of_epoll() -> None:
    """Timeouts are seconds, and events the same numbers."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        poller = unpatched.poller()
        assert isinstance(poller, system.Poll)
        poller.register(ours.fileno(), select.POLLIN)
        assert list(poller.poll(0.0)) == []
        assert list(poller.poll(0.01)) == []
        poller.modify(ours.fileno(), select.POLLIN | select.POLLOUT)
        assert list(poller.poll(None)) == [(ours.fileno(), select.POLLOUT)]
        theirs.send(b"x")
        poller.modify(ours.fileno(), select.POLLIN)
        assert list(poller.poll(60.0)) == [(ours.fileno(), select.POLLIN)]
        poller.unregister(ours.fileno())
        assert list(poller.poll(0.0)) == []
        poller.close()


@pytest.mark.skipif(sys.platform != "linux", reason="epoll is Linux's")
def test_a_descriptor_is_taken_out_of_the_epoll_set_of_a_loop() -> None:
    """Without another descriptor: the process may have none left."""
    ours, theirs = socket.socketpair()
    with select.epoll() as epoll, ours, theirs:
        epoll.register(ours.fileno(), select.EPOLLOUT)
        for _ in range(2):
            _core.unwatch_descriptor(epoll.fileno(), ours.fileno())
            assert epoll.poll(0) == []
        with pytest.raises(OSError, match=r"Bad file descriptor|Invalid argument"):
            _core.unwatch_descriptor(ours.fileno(), theirs.fileno())


@pytest.mark.usefixtures("without_epoll")
def test_kqueue_needs_no_help_to_forget_a_descriptor(monkeypatch: pytest.MonkeyPatch) -> None:
    """uvloop's and gevent's loops watch by kqueue there."""
    asked: list[str] = []
    loop = SimpleNamespace(_get_backend_id=lambda: asked.append("uvloop"))
    monkeypatch.setattr(asyncio, "get_running_loop", lambda: loop)
    assert transports.epoll_of_uvloop() is None
    hub = SimpleNamespace(get_hub=lambda: asked.append("gevent"))
    monkeypatch.setitem(sys.modules, "gevent", hub)
    gevent.forget(0)
    assert asked == []


def test_a_socket_of_the_mesh_has_a_short_enough_address_on_macos(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A longer one could not be bound, and the default backend would fail."""
    monkeypatch.setattr(local, "_KEY_LENGTH", local._SHORT_KEY)
    monkeypatch.setattr(os, "geteuid", lambda: MAC_USER)
    monkeypatch.delenv("WEBSOCKET_RUNTIME_DIR", raising=False)
    monkeypatch.setattr("tempfile.gettempdir", lambda: MAC_TEMPORARY)
    settings: Any = SimpleNamespace(runtime_dir=None)
    folder = local.folder_of(settings, bytes(32))
    assert len(os.fsencode(folder / f"{2**64 - 1:016x}.new")) <= MAC_LONGEST_ADDRESS


def test_signals_with_their_default_action() -> None:
    """Without looking into /proc."""
    assert not _core.is_default(signal.SIGINT)
    before = signal.signal(signal.SIGUSR2, signal.SIG_DFL)
    try:
        assert _core.is_default(signal.SIGUSR2)
        for action in (signal.SIG_IGN, lambda *_: None):
            signal.signal(signal.SIGUSR2, action)
            assert not _core.is_default(signal.SIGUSR2)
    finally:
        signal.signal(signal.SIGUSR2, before)
    with pytest.raises(OSError, match="Invalid argument"):
        _core.is_default(10_000)


def test_a_handler_in_c_counts() -> None:
    """`signal.getsignal` would not show it."""
    code = (
        "import ctypes, signal; from dwebsocket import _core\n"
        "handler = ctypes.CFUNCTYPE(None, ctypes.c_int)(lambda number: None)\n"
        "ctypes.CDLL(None).signal(int(signal.SIGUSR2), handler)\n"
        "assert signal.getsignal(signal.SIGUSR2) is signal.SIG_DFL\n"
        "assert not _core.is_default(signal.SIGUSR2)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_limits_where_there_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on Windows, which has no module `resource`."""
    monkeypatch.setattr(system, "resource", None)
    assert system.limits_of("NOFILE") == (system.UNLIMITED, system.UNLIMITED)


def test_users_and_forks_where_there_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on Windows."""
    monkeypatch.delattr(os, "geteuid")
    monkeypatch.delattr(os, "register_at_fork")
    assert system.user_id() == 0
    system.at_fork(lambda: None)


def test_a_child_has_new_values_and_keeps_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """They replace what the names of a module stood for in the parent."""
    hooks: list[Any] = []
    monkeypatch.setattr(os, "register_at_fork", lambda after_in_child: hooks.append(after_in_child))
    names = {"_calls": [1], "_open": 2, "other": 3}
    system.renew_at_fork(names, _calls=list, _open=int)
    hooks[0]()
    assert names == {"_calls": [], "_open": 0, "other": 3}


def test_a_worker_of_gunicorn_assumes_that_the_site_goes_on_where_it_cannot_look(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Without /proc its arbiter's descriptors cannot be seen; usually a worker is replaced."""
    from dwebsocket.servers.families import gunicorn

    cfg = SimpleNamespace(graceful_timeout=30, timeout=30, workers=2)
    worker = SimpleNamespace(cfg=cfg, nr=0, max_requests=9, ppid=os.getppid(), sockets=[])
    monkeypatch.setattr(gunicorn, "Path", lambda path: tmp_path / "none")
    shutdown_plan = gunicorn._PlanOfWorker(worker, lambda: False)(terminated=True)
    assert shutdown_plan.goes_on


def test_a_worker_of_gunicorn_looks_on_where_its_arbiter_closes_a_file_meanwhile(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As it does when another worker has ended. That its listening sockets are closed counts."""
    from dwebsocket.servers.families import gunicorn

    (tmp_path / "1").symlink_to("pipe:[1]")
    entries = [tmp_path / "0", tmp_path / "1"]
    monkeypatch.setattr(gunicorn, "Path", lambda _: SimpleNamespace(iterdir=lambda: iter(entries)))
    cfg = SimpleNamespace(graceful_timeout=30, timeout=30, workers=2)
    worker = SimpleNamespace(cfg=cfg, nr=0, max_requests=9, ppid=os.getppid(), sockets=[])
    plan = gunicorn._PlanOfWorker(worker, lambda: False)
    assert not plan(terminated=True).goes_on


def test_children_of_a_process() -> None:
    """Those that live, of any age or of a few seconds."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        assert child.pid in system.children_of(os.getpid())
        assert child.pid in system.children_of(os.getpid(), younger=100)
        assert child.pid not in system.children_of(os.getpid(), younger=-1)
        child.communicate(b"\n")
    assert child.pid not in system.children_of(os.getpid())
    assert system.children_of(child.pid) == []


def test_the_tracker_of_multiprocessing_is_no_process_of_a_server() -> None:
    """uvicorn and hypercorn have it beside their workers."""
    code = (
        "from multiprocessing import resource_tracker\nresource_tracker.ensure_running()\ninput()\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE) as process:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        (tracker,) = eventually(children.read_text, what="it has begun").split()
        command = Path(f"/proc/{tracker}/cmdline")
        eventually(lambda: "main" in command.read_text(), what="it is no copy any more")
        assert system.children_of(process.pid) == []
        process.communicate(b"\n")


def test_a_process_whose_name_is_cut_within_a_character(tmp_path: Path) -> None:
    """Its name is that of the script that was started, of which the kernel keeps 15 bytes."""
    script = tmp_path / "интернет.sh"
    script.write_text("#!/bin/sh\nread line\n")
    script.chmod(0o700)
    with subprocess.Popen([script], stdin=subprocess.PIPE) as child:
        assert child.pid in system.children_of(os.getpid(), younger=100)
        child.communicate(b"\n")
