"""Faults of members, and the ends of processes, while thousands of messages to them are queued."""

from __future__ import annotations

import contextlib
import signal
import socket
from typing import TYPE_CHECKING

import pytest

from support.raw_peer import CLOSE, TEXT, RawPeer, build_frame
from support.server import GUNICORN_GTHREAD, GUNICORN_SYNC, UVICORN, Kind, Server, is_running
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable

    Own = Callable[..., Server]

pytestmark = pytest.mark.extended("takes away members and processes")

on_three = pytest.mark.parametrize("kind", [GUNICORN_SYNC, GUNICORN_GTHREAD, UVICORN], ids=str)

ROOM, COUNT = "/groups/room/one/", "/groups/members/one/"
ASYNC_ROOM = "/groups/async-room/one/"
GOING_AWAY = {1001, 1012}


def members(server: Server) -> int:
    """Count the members of the room."""
    return int(server.get(COUNT).body)


def read_pid(peer: RawPeer) -> RawPeer:
    """Read what the view sends first."""
    assert peer.read_message().isdigit()
    return peer


def test_members_of_these_tests_get_what_is_published(
    own_server: Own, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the other modules run with groups, something is published all the time."""
    settings = {"ROOT_URLCONF": "project.group_urls", "PUBLISHED": "published"}
    server = own_server(GUNICORN_SYNC, settings=settings)
    with RawPeer.open(server, "/waits/") as peer, RawPeer.open(server, "/waits/") as other:
        for _ in range(10):
            assert peer.read_message() == other.read_message() == b"published"
        monkeypatch.setattr(RawPeer, "ignored", b"published")
        other.vanish()
        with RawPeer.open(server, "/echo/") as echo:
            echo.send_text("hello")
            assert echo.read_message() == b"hello"


FAULTS: dict[str, Callable[[RawPeer], None]] = {
    "vanishes": lambda peer: peer.vanish(),
    "half a frame": lambda peer: (
        peer.send(build_frame(TEXT, b"never whole")[:-3]),
        peer.vanish(),
    )[1],
    "closes its half": lambda peer: peer.sock.shutdown(socket.SHUT_WR),
    "half a frame, closes its half": lambda peer: (
        peer.send(build_frame(TEXT, b"never whole")[:-3]),
        peer.sock.shutdown(socket.SHUT_WR),
    )[1],
    "garbage": lambda peer: peer.send(b"GET / HTTP/1.1\r\n\r\n" + b"\xff" * 1000),
    "a frame without a mask": lambda peer: peer.send_frame(TEXT, b"hi", mask=None),
    "no UTF-8": lambda peer: peer.send_frame(TEXT, b"\xff"),
    "an unfinished close": lambda peer: peer.send_frame(CLOSE, b"\x03"),
}


@on_three
@pytest.mark.parametrize("path", [ROOM, ASYNC_ROOM], ids=["sync", "async"])
def test_members_that_break_off(own_server: Own, kind: Kind, path: str) -> None:
    """While messages flow: they are members no more, and all others get every message."""
    server = own_server(kind)
    with contextlib.ExitStack() as stack:
        good = [read_pid(stack.enter_context(RawPeer.open(server, path))) for _ in range(5)]
        sent = 0
        for break_off in FAULTS.values():
            bad = [read_pid(stack.enter_context(RawPeer.open(server, path))) for _ in range(5)]
            for peer in bad:
                for _ in range(20):
                    good[0].send_text(str(sent))
                    sent += 1
                break_off(peer)
            eventually(lambda: members(server) == len(good), what="the others have left")
        for peer in good:
            assert [int(peer.read_message()) for _ in range(sent)] == list(range(sent))


@on_three
def test_a_view_that_raises(own_server: Own, kind: Kind) -> None:
    """Its connection is a member no more; others are not disturbed."""
    settings = {"ROOT_URLCONF": "project.group_urls", "PUBLISHED": "published"}
    server = own_server(kind, settings=settings)
    with RawPeer.open(server, "/waits/") as member:
        for _ in range(20):
            with RawPeer.open(server, "/raises-after-message/") as peer:
                peer.send_text("hi")
                while (frame := peer.read_frame()).opcode != CLOSE:
                    assert frame.payload in (b"published", b"hi")
                assert frame.code == 1011
                peer.send_close(1011)
            assert member.read_message() == b"published"
        there = "/everybody/count/"
        eventually(lambda: server.get(there).body == b"1", what="they have left")


@on_three
@pytest.mark.parametrize("how", ["terminated", "killed"])
def test_end_of_a_process_with_queued_messages(own_server: Own, kind: Kind, how: str) -> None:
    """
    Members that read late get what was queued, in order, and then the close frame.

    The process ends in bounded time although some members never read; no other process of the
    project is disturbed by its end.
    """
    server = own_server(kind)
    messages = 5000
    text = "x" * 20
    with contextlib.ExitStack() as stack:
        peers = [
            read_pid(stack.enter_context(RawPeer.open(server, ROOM, receive_buffer=4096)))
            for _ in range(10)
        ]
        late, never = peers[:5], peers[5:]
        publisher = read_pid(stack.enter_context(RawPeer.open(server, ROOM)))
        for number in range(messages):
            publisher.send_text(f"{number:06d}{text}")
        # When the publisher has the last one it was handed to all.
        for number in range(messages):
            assert publisher.read_message().startswith(b"%06d" % number)
        worker = server.worker
        if how == "killed":
            server.kill()
        else:
            server.send_signal(signal.SIGTERM)
        for peer in late:
            ending = peer.read_to_eof()
            got = [int(message[:6]) for message in ending.messages]
            assert got == list(range(len(got)))
            if how == "terminated":
                assert len(got) == messages
                assert ending.code in GOING_AWAY
        eventually(lambda: not is_running(worker), what="the process has ended")
        assert len(never) == 5
    assert "Traceback" not in server.stderr()
    assert "panicked" not in server.stderr()
