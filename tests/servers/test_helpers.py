"""`on_close`, `start`, `every` and `pump` on every kind of threads, and when the process ends."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

from support.raw_peer import RawPeer
from support.selection import later
from support.server import (
    ASGI,
    EVENTLET_PATCHED,
    GEVENT_PATCHED,
    GUNICORN_EVENTLET,
    GUNICORN_GEVENT,
    MAIN,
    TIME_TO_END,
    Server,
    is_running,
)
from support.waiting import eventually
from support.wsgi_kinds import WSGI_SERVERS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from support.server import Kind

KINDS = (
    *MAIN,
    GUNICORN_GEVENT,
    GEVENT_PATCHED,
    GUNICORN_EVENTLET,
    EVENTLET_PATCHED,
    *WSGI_SERVERS,
    *ASGI,
)
everywhere = pytest.mark.parametrize("server", KINDS, ids=str, indirect=True)


def lines(file: Path) -> list[str]:
    """Give what the callbacks have noted."""
    return file.read_text().splitlines() if file.exists() else []


def noted(file: Path, code: int | None) -> None:
    """Assert that each callback has run once, in its order."""
    eventually(lambda: len(lines(file)) >= 4, 60, "all callbacks have run")
    first, *rest = lines(file)
    # The database is shared with tests that make users.
    assert [line.partition(" ")[0] for line in rest] == ["async", "users", "last"]
    assert first.startswith("first ")
    assert code is None or first == f"first {code}"


def clients_code(server: Server) -> int | None:
    """Give the code that the application sees for a client's 4000; hypercorn reports 1006."""
    return None if str(server.kind) == "hypercorn" else 4000


@everywhere
@pytest.mark.parametrize("path", ["closes", "aclosing"])
class TestOnClose:
    """Four callbacks: a function, a coroutine function, the ORM, a function with arguments."""

    def test_client_closes(self, server: Server, tmp_path: Path, path: str) -> None:
        """With the client's code."""
        with RawPeer.open(server, f"/{path}/?file={tmp_path / 'log'}") as peer:
            assert peer.read_message() == b"ready"
            peer.send_close(4000)
            noted(tmp_path / "log", clients_code(server))

    def test_client_vanishes(self, server: Server, tmp_path: Path, path: str) -> None:
        """Without a close frame."""
        with RawPeer.open(server, f"/{path}/?file={tmp_path / 'log'}") as peer:
            assert peer.read_message() == b"ready"
            peer.vanish()
            noted(tmp_path / "log", None)

    def test_view_returns(self, server: Server, tmp_path: Path, path: str) -> None:
        """With the view's code."""
        with RawPeer.open(server, f"/{path}/?file={tmp_path / 'log'}") as peer:
            assert peer.read_message() == b"ready"
            peer.send_text("end")
            noted(tmp_path / "log", 1000)


@everywhere
def test_on_close_runs_beside_a_view_that_is_busy(server: Server, tmp_path: Path) -> None:
    """It does not wait for the view."""
    with RawPeer.open(server, f"/closes/?busy&file={tmp_path / 'log'}") as peer:
        assert peer.read_message() == b"ready"
        peer.send_close(4000)
        noted(tmp_path / "log", clients_code(server))


@everywhere
def test_helper_ticker_and_process_end_with_the_client(server: Server) -> None:
    """The process is gone, and no thread is left."""
    with server.nothing_left(), RawPeer.open(server, "/starts/") as peer:
        messages = [peer.read_message()]
        peer.send_text("hi")

        def pids() -> list[int]:
            return [int(message) for message in messages if message.strip().isdigit()]

        while not ({b"tick", b"echo hi"} <= set(messages) and pids()):
            messages.append(peer.read_message())
        (pid,) = pids()
        assert is_running(pid)
        peer.send_close(1000)
        eventually(lambda: not is_running(pid), 60, "the process is gone")


# granian's own threads panic now and then while its process ends, and take the views with them.
@pytest.mark.parametrize("kind", [kind for kind in KINDS if str(kind) != "granian"], ids=str)
@pytest.mark.parametrize("path", ["closes", *later("aclosing")])
def test_on_close_runs_when_the_process_ends(
    own_server: Callable[..., Server], tmp_path: Path, kind: Kind, path: str
) -> None:
    """In the ordinary way of each server; it waits for callbacks that take a part of a second."""
    server = own_server(kind, env=TIME_TO_END)
    with RawPeer.open(server, f"/{path}/?pause=0.3&file={tmp_path / 'log'}") as peer:
        assert peer.read_message() == b"ready"
        server.send_signal(signal.SIGTERM)
        noted(tmp_path / "log", None)
        server.wait(60)
