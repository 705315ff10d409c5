"""Cases of the servers that have one process: Werkzeug, cheroot, waitress."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import signal
from typing import TYPE_CHECKING

import pytest

from support.idle import outlive
from support.raw_peer import TEXT, RawPeer, build_frame, handshake_request
from support.selection import later
from support.server import TESTS, Kind, Server
from support.waiting import eventually
from support.wsgi_kinds import CHEROOT, SINGLE_PROCESS, WAITRESS, WERKZEUG_ONE_THREAD

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.extended("concerns Werkzeug, cheroot and waitress only")

GOING_AWAY = {1001, 1012}
PATHS = ["/echo/", "/waits/", "/push/", "/never-read/", "/echo-exact/"]


@pytest.mark.parametrize("kind", SINGLE_PROCESS, ids=str)
@pytest.mark.parametrize("number", [signal.SIGTERM, *later(signal.SIGINT)])
def test_signals(kind: Kind, number: int, own_server: Callable[..., Server]) -> None:
    """None of them closes its clients itself: 100 of them get a close frame, in bounded time."""
    server = own_server(kind)
    with contextlib.ExitStack() as stack:
        peers = [
            peer
            for path in PATHS
            for peer in stack.enter_context(RawPeer.open_many(server, path, 20))
        ]
        server.at_rest()
        server.send_signal(number)
        assert {peer.read_to_eof().code for peer in peers} <= GOING_AWAY
        server.wait(60)
    assert "Traceback" not in server.stderr()


@pytest.mark.slow
@pytest.mark.parametrize("kind", [WAITRESS, *later(WERKZEUG_ONE_THREAD, CHEROOT)], ids=str)
def test_200_sockets_outlive_every_timeout(kind: Kind, own_server: Callable[..., Server]) -> None:
    """200 idle sockets on a single thread, three times its timeout; pages all the time."""
    server = own_server(kind, env={"LAUNCH_PATIENCE": "2"})
    with server.quiet(), server.nothing_left():
        with RawPeer.open_many(server, "/echo/", 200) as peers:
            outlive(server, peers, pages=13)


def test_waitress_that_reads_on(own_server: Callable[..., Server]) -> None:
    """With channel_request_lookahead early bytes may be lost: 501, and what to change."""
    server = own_server(WAITRESS, options=("channel_request_lookahead=1",))
    with RawPeer(server.address) as peer:
        peer.send(handshake_request("/echo/", server.host))
        assert peer.read_response().status == 501
    assert "channel_request_lookahead" in server.stderr()
    assert server.get("/echo/").body == b"a page"


def test_waitress_that_took_a_message_for_a_request(own_server: Callable[..., Server]) -> None:
    """Early bytes that look like the end of a head are gone: refused, not lost in silence."""
    server = own_server(WAITRESS)
    # Masked with zeros, so that the four bytes stay as they are.
    early = build_frame(TEXT, b"one\r\n\r\ntwo", mask=bytes(4))
    with RawPeer(server.address) as peer:
        peer.send(handshake_request("/echo/", server.host) + early)
        assert peer.read_response().status == 501
    assert "RFC 6455" in server.stderr()


RUNSERVER_PLUS = Kind(
    "runserver-plus",
    "runserver-plus",
    ("{python}", "-m", "django", "runserver_plus", "127.0.0.1:{port}"),
)


@pytest.mark.skipif(
    importlib.util.find_spec("django_extensions") is None, reason="no django-extensions here"
)
class TestRunserverPlus:
    """django-extensions' runserver_plus: Werkzeug with its debugger and its reloader."""

    @pytest.fixture
    def start(self, own_server: Callable[..., Server], tmp_path: Path) -> Callable[..., Server]:
        """Start it on a copy of the project."""
        shutil.copytree(TESTS / "project", tmp_path / "project")
        apps = ["auth", "contenttypes", "sessions"]
        settings = {
            "INSTALLED_APPS": [
                *(f"django.contrib.{app}" for app in apps),
                "django_extensions",
            ]
        }

        def run(*options: str) -> Server:
            return own_server(RUNSERVER_PLUS, options=options, settings=settings, cwd=tmp_path)

        return run

    def test_reload(self, start: Callable[..., Server]) -> None:
        """A changed file restarts it; clients get 1012 and may come back."""
        server = start("--reloader-interval", "1", "--reloader-type", "stat")
        process = server.status()["pid"]
        with RawPeer.open_many(server, "/echo/", 10) as peers:
            changed = server.cwd / "project" / "views.py"
            changed.write_text(changed.read_text() + "\n# changed\n")
            assert {peer.read_to_eof().code for peer in peers} <= GOING_AWAY

            def restarted() -> bool:
                with contextlib.suppress(OSError):
                    return server.status()["pid"] != process
                return False

            eventually(restarted, 60, "the new process answers")
        with RawPeer.open(server, "/echo/", early=build_frame(TEXT, b"early")) as peer:
            peer.send_text("later")
            assert [peer.read_message(), peer.read_message()] == [b"early", b"later"]
            os.kill(server.status()["pid"], signal.SIGTERM)
            assert peer.read_to_eof().code in GOING_AWAY
        assert "Traceback" not in server.stderr()
