"""
Processes that end while sockets are open.

Every client gets a close frame with 1001 (an end) or 1012 (a restart), and the process
ends by itself in bounded time, with nothing that looks like an accident in its log.
"""

from __future__ import annotations

import contextlib
import os
import signal
from typing import TYPE_CHECKING

import pytest

from support.raw_peer import RawPeer
from support.server import (
    GUNICORN_GTHREAD,
    GUNICORN_SYNC,
    RUNSERVER,
    RUNSERVER_NOTHREADING,
    RUNSERVER_RELOADING,
    TESTS,
    Kind,
    Server,
    is_running,
)
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

GOING_AWAY = {1001, 1012}
GUNICORNS = pytest.mark.parametrize("kind", [GUNICORN_SYNC, GUNICORN_GTHREAD], ids=str)

# Views in all states: waiting, pushing, looking now and then.
PATHS = ["/echo/", "/waits/", "/push/", "/never-read/", "/echo-exact/"]
GRACE_S = 60


@contextlib.contextmanager
def hundred_sockets(server: Server) -> Iterator[list[RawPeer]]:
    """Hold twenty connections to each view."""
    with contextlib.ExitStack() as stack:
        yield [
            peer
            for path in PATHS
            for peer in stack.enter_context(RawPeer.open_many(server, path, 20))
        ]


def assert_calm(server: Server) -> None:
    """The log holds no traceback and no error."""
    log = server.stderr()
    for word in ("Traceback", "Exception", "Error", "panicked", "Fatal"):
        assert word not in log, log


@GUNICORNS
class TestGunicorn:
    """gunicorn's signals."""

    def test_sigterm(self, kind: Kind, own_server: Callable[..., Server]) -> None:
        """100 clients each get a close frame; gunicorn exits within its graceful timeout."""
        server = own_server(kind, options=("--graceful-timeout", str(GRACE_S)))
        with hundred_sockets(server) as peers:
            server.at_rest()
            server.send_signal(signal.SIGTERM)
            assert {peer.read_to_eof().code for peer in peers} <= GOING_AWAY
            assert server.wait(GRACE_S * 2 / 3) == 0
        assert_calm(server)

    def test_sigterm_with_clients_that_do_not_answer(
        self, kind: Kind, own_server: Callable[..., Server]
    ) -> None:
        """Clients that neither read nor answer the close do not keep the process."""
        server = own_server(kind, options=("--graceful-timeout", str(GRACE_S)))
        with hundred_sockets(server):
            server.send_signal(signal.SIGTERM)
            assert server.wait(GRACE_S * 2 / 3) == 0
        assert_calm(server)

    def test_sigterm_after_the_last_socket(
        self, kind: Kind, own_server: Callable[..., Server]
    ) -> None:
        """An engine without connections does not delay the end."""
        server = own_server(kind)
        with server.nothing_left():
            pass
        server.send_signal(signal.SIGTERM)
        # A limit for a hang, not a measurement: a busy machine takes seconds to end two processes.
        assert server.wait(GRACE_S * 2) == 0
        assert server.stderr() == ""

    def test_sighup(self, kind: Kind, own_server: Callable[..., Server]) -> None:
        """A reload closes the old worker's clients with 1012; the new worker takes new ones."""
        server = own_server(kind, options=("--graceful-timeout", str(GRACE_S)))
        worker = server.worker
        with hundred_sockets(server) as peers:
            server.send_signal(signal.SIGHUP)
            assert {peer.read_to_eof().code for peer in peers} <= GOING_AWAY
        eventually(lambda: not is_running(worker), 60, "the old worker is gone")
        eventually(lambda: server.workers() and server.workers() != [worker], 60)
        with RawPeer.open(server, "/echo/") as peer:
            peer.send_text("hello again")
            assert peer.read_message() == b"hello again"
        assert_calm(server)

    def test_max_requests(self, kind: Kind, own_server: Callable[..., Server]) -> None:
        """A worker that gunicorn replaces after some requests closes its clients, too."""
        server = own_server(kind, options=("--max-requests", "10"))
        worker = server.worker
        with RawPeer.open(server, "/echo/") as peer:
            for _ in range(12):
                with contextlib.suppress(OSError):
                    server.get("/echo/")
            assert peer.read_to_eof().code in GOING_AWAY
        eventually(lambda: not is_running(worker), 60, "the old worker is gone")

    def test_killed_worker(self, kind: Kind, own_server: Callable[..., Server]) -> None:
        """kill -9 leaves no time for close frames: clients see the end; the next worker serves."""
        server = own_server(kind)
        worker = server.worker
        with RawPeer.open(server, "/echo/") as peer:
            os.kill(worker, signal.SIGKILL)
            assert peer.read_to_eof().frames == []
        eventually(lambda: server.workers() not in ([], [worker]), 60, "a new worker")
        with RawPeer.open(server, "/echo/") as peer:
            peer.send_text("hello again")
            assert peer.read_message() == b"hello again"


@pytest.mark.parametrize("kind", [RUNSERVER, RUNSERVER_NOTHREADING], ids=str)
def test_ctrl_c_in_runserver(kind: Kind, own_server: Callable[..., Server]) -> None:
    """Ctrl-C ends runserver with its 100 sockets, with nothing on stderr."""
    server = own_server(kind)
    with hundred_sockets(server) as peers:
        server.at_rest()
        server.send_signal(signal.SIGINT)
        assert {peer.read_to_eof().code for peer in peers} <= GOING_AWAY
        server.wait(60)
    assert server.stderr() == ""


class TestReload:
    """runserver's autoreload."""

    @pytest.fixture
    def reloading(self, own_server: Callable[..., Server], tmp_path) -> Server:
        """A runserver on a copy of the project, with a file to touch."""
        import shutil

        shutil.copytree(TESTS / "project", tmp_path / "project")
        return own_server(RUNSERVER_RELOADING, cwd=tmp_path)

    def test_reload_with_open_sockets(self, reloading: Server) -> None:
        """A changed file restarts the server; every client gets 1012, and may come back."""
        (child,) = reloading.workers()
        with hundred_sockets(reloading) as peers:
            changed = reloading.cwd / "project" / "views.py"

            def is_noticed() -> bool:
                # Again and again: Django may not watch yet.
                changed.write_text(changed.read_text() + "\n# changed\n")
                return peers[0].is_readable(5)

            eventually(is_noticed, what="the change is noticed")
            assert {peer.read_to_eof().code for peer in peers} <= GOING_AWAY

            def restarted() -> bool:
                with contextlib.suppress(OSError):
                    return reloading.status()["pid"] != child
                return False

            eventually(restarted, 60, "the new process answers")
        with RawPeer.open(reloading, "/echo/") as peer:
            peer.send_text("hello again")
            assert peer.read_message() == b"hello again"
        assert "Traceback" not in reloading.stderr()

    def test_sigterm_of_the_reloading_pair(self, reloading: Server) -> None:
        """SIGTERM to the process that serves ends it with a close frame for each client."""
        (child,) = reloading.workers()
        with RawPeer.open(reloading, "/echo/") as peer:
            os.kill(child, signal.SIGTERM)
            assert peer.read_to_eof().code in GOING_AWAY
        assert "Traceback" not in reloading.stderr()
