"""The engine and fork: born in the process that uses it, never inherited."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from support.raw_peer import RawPeer
from support.server import GUNICORN_GTHREAD, GUNICORN_SYNC, TESTS, Kind, Server, thread_names
from support.waiting import eventually
from support.workers import ENGINE, connected_to_each, echoes_to_all

if TYPE_CHECKING:
    from collections.abc import Callable

SCRIPT = Path(__file__).with_name("embedded_server.py")


@pytest.mark.parametrize("kind", [GUNICORN_SYNC, GUNICORN_GTHREAD], ids=str)
def test_preload_with_two_workers(kind: Kind, own_server: Callable[..., Server]) -> None:
    """With --preload each worker has an engine of its own; the arbiter has none."""
    server = own_server(kind, options=("--preload", "--workers", "2"))
    eventually(lambda: len(server.workers()) == 2, 60, "two workers")
    with contextlib.ExitStack() as stack:
        echoes_to_all(connected_to_each(server, stack))
        assert ENGINE not in thread_names(server.pid)
    assert server.stderr() == ""


def run_script(database: Path, mode: str, path: str = "/echo/") -> subprocess.CompletedProcess[str]:
    """Run the script to its end."""
    return subprocess.run(
        [sys.executable, str(SCRIPT), mode, path],
        env=script_env(database),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def script_env(database: Path) -> dict[str, str]:
    """Return the environment in which the script finds the test project."""
    return {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "project.settings",
        "PROJECT_DB": str(database),
        "PYTHONPATH": os.pathsep.join(filter(None, [str(TESTS), os.getenv("PYTHONPATH")])),
    }


HANDLERS = [f"/handlers/{kind}/fork/" for kind in ("echo", "async-echo", "mixed-echo")]


@pytest.mark.parametrize("path", ["/echo/", HANDLERS[-1]])
def test_parent_that_used_the_engine_forks(database: Path, path: str) -> None:
    """The child starts its own engine; the parent's connections live through the child's life."""
    done = run_script(database, "fork", path)
    assert (done.returncode, done.stdout.split(), done.stderr) == (
        0,
        ["parent:echo", "child:echo", "child:exit:0", "parent:echo"],
        "",
    )


def test_child_that_only_exits(database: Path) -> None:
    """A child that never touches the engine ends at once and leaves the parent alone."""
    done = run_script(database, "fork-idle")
    assert (done.returncode, done.stdout.split(), done.stderr) == (
        0,
        ["parent:echo", "child:exit:0", "parent:echo"],
        "",
    )


@pytest.mark.parametrize("how", ["return", "sys-exit", "exception"])
def test_interpreter_exit_with_open_sockets(database: Path, how: str) -> None:
    """
    However the main thread ends, clients get 1001 and the interpreter ends in bounded time.

    Those of views that wait, push or ignore them, and of each kind of handler.
    """
    paths = ["/echo/", "/waits/", "/push/", "/never-read/", *HANDLERS]
    with subprocess.Popen(
        [sys.executable, str(SCRIPT), f"exit-{how}"],
        env=script_env(database),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            port = int(process.stdout.readline())
            server = _Address(("127.0.0.1", port))
            with contextlib.ExitStack() as stack:
                peers = {
                    path: stack.enter_context(RawPeer.open_many(server, path, 5))  # type: ignore[arg-type]
                    for path in paths
                }
                process.stdin.write("\n")
                process.stdin.flush()
                codes = {path: {peer.read_to_eof().code for peer in peers[path]} for path in paths}
                assert codes == {path: {1001} for path in paths}
            status = eventually(lambda: process.poll() is not None and [process.returncode], 60)
        finally:
            process.kill()
        errors = process.stderr.read()
    if how == "exception":
        assert (status, errors.splitlines()[-1]) == ([1], "RuntimeError: the end")
    else:
        assert (status, errors) == ([0], "")


class _Address:
    """As much of a server as a raw peer needs."""

    host = "localhost"

    def __init__(self, address: tuple[str, int]) -> None:
        self.address = address
