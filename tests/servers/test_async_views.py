"""Async views behave as an asyncio user expects, in the server's loop and in the background."""

from __future__ import annotations

import json
import os

import pytest

from support.raw_peer import BINARY, CLOSE, TEXT, Frame, RawPeer, build_frame
from support.server import ASGI, GUNICORN_GTHREAD, RUNSERVER, Server
from support.waiting import eventually

everywhere = pytest.mark.parametrize(
    "server", [RUNSERVER, GUNICORN_GTHREAD, *ASGI], indirect=True, ids=str
)


@everywhere
class TestAsyncViews:
    """The `a…` calls, cancellation, and the end."""

    def test_iteration_echoes_exactly(self, server: Server) -> None:
        """Text stays text and binary stays binary."""
        with RawPeer.open(server, "/async-echo/") as peer:
            for frame in (Frame(TEXT, "né".encode()), Frame(BINARY, b"plain")):
                peer.send_frame(frame.opcode, frame.payload)
                assert peer.read_frame() == frame
            peer.send_frame(BINARY, bytes(1 << 20))
            assert peer.read_message() == bytes(1 << 20)

    def test_json(self, server: Server) -> None:
        """Data goes there and back."""
        with RawPeer.open(server, "/async-json/") as peer:
            peer.send_text('{"number": 21}')
            assert json.loads(peer.read_message()) == {"twice": 42}

    def test_orm(self, server: Server) -> None:
        """The async ORM works, for several connections at once."""
        with RawPeer.open_many(server, "/async-orm/", 3) as peers:
            for peer in peers:
                peer.send_text("a" + os.urandom(6).hex())
            for peer in peers:
                assert json.loads(peer.read_message()) == {"there": 1, "user": "AnonymousUser"}

    def test_cancelled_receive_loses_no_message(self, server: Server) -> None:
        """A thousand messages against a wait that gives up every millisecond."""
        with RawPeer.open(server, "/async-impatient/") as peer:
            for number in range(1000):
                peer.send(build_frame(TEXT, b"%d" % number))
                if number % 10 == 9:
                    seen = [peer.read_message() for _ in range(10)]
                    assert seen == [b"%d" % n for n in range(number - 9, number + 1)]

    def test_tasks_share_a_connection(self, server: Server) -> None:
        """One task pushes while another listens; a cancelled one stops and the view goes on."""
        with RawPeer.open(server, "/async-tasks/") as peer:
            peer.send_text("you")
            seen = [peer.read_message()]
            while seen[-1] != b"heard you":
                seen.append(peer.read_message())
            peer.send_text("stop")
            while seen[-1] != b"cancelled":
                seen.append(peer.read_message())
            pushed = [text for text in seen if text.startswith(b"push")]
            assert pushed == [b"push %d" % n for n in range(len(pushed))]
            assert peer.read_frame().opcode == CLOSE

    def test_client_s_close_ends_the_iteration(self, server: Server) -> None:
        """The view sees the code."""
        name = f"closed-{server.kind}"
        with RawPeer.open(server, f"/async-reports/{name}/") as peer:
            peer.send_close(4001)
            peer.read_to_eof()
        seen = eventually(lambda: server.get(f"/seen/{name}/").json()["seen"], 60)
        assert seen == [4001, True]

    def test_client_that_vanishes_ends_the_iteration(self, server: Server) -> None:
        """Without a close frame the view sees the end, too."""
        name = f"vanished-{server.kind}"
        with RawPeer.open(server, f"/async-reports/{name}/") as peer:
            peer.vanish()
        seen = eventually(lambda: server.get(f"/seen/{name}/").json()["seen"], 60)
        # Some servers report it as 1005.
        assert seen in ([1006, True], [1005, True])

    def test_exception_closes_with_1011(self, server: Server) -> None:
        """And is logged, with its traceback."""
        before = len(server.stderr())
        with RawPeer.open(server, "/async-raises/") as peer:
            peer.send_text("go")
            assert peer.read_frame().code == 1011
        eventually(lambda: "this async view is broken" in server.stderr()[before:], 60)
