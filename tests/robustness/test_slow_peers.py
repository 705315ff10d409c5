"""
Peers that read or write at their own pace, or not at all.

One slow peer costs what its limits allow, and no other client notices.
"""

from __future__ import annotations

import contextlib
import socket

import pytest

from support.raw_peer import BINARY, PING, PONG, TEXT, Frame, RawPeer, build_frame
from support.server import MAIN, Server
from support.waiting import eventually

pytestmark = pytest.mark.parametrize("server", MAIN, indirect=True, ids=str)

MEBIBYTE = 1 << 20


def resident_bytes(server: Server) -> int:
    """Return the worker's resident memory."""
    with open(f"/proc/{server.worker}/statm") as statm:
        return int(statm.read().split()[1]) * 4096


def flood(peer: RawPeer, limit: int) -> int:
    """Write messages until the server takes no more, or `limit`; return the bytes written."""
    block = build_frame(BINARY, b"x" * 16_000)
    peer.sock.settimeout(0.5)
    written = 0
    with contextlib.suppress(TimeoutError):
        while written < limit:
            # Whole or not does not matter here: the rest is not going to be parsed.
            written += peer.sock.send(block[written % len(block) :])
    peer.sock.settimeout(20)
    return written


class TestViewThatDoesNotRead:
    """Messages that the view does not take."""

    def test_pushes_back(self, server: Server) -> None:
        """The server stops reading: 200 MiB do not end in its memory."""
        before = resident_bytes(server)
        with RawPeer.open(server, "/never-read/") as peer:
            assert flood(peer, 200 * MEBIBYTE) < 100 * MEBIBYTE
            assert resident_bytes(server) - before < 100 * MEBIBYTE
            # No other client waits for it.
            with RawPeer.open(server, "/echo/") as other:
                other.send_text("hello")
                assert other.read_message() == b"hello"

    def test_peer_vanishes_with_a_full_inbox(self, server: Server) -> None:
        """Not reading does not mean not noticing: the view ends soon after a reset."""
        with server.nothing_left(), RawPeer.open(server, "/never-read/") as peer:
            flood(peer, 200 * MEBIBYTE)
            peer.vanish()

    def test_peer_closes_with_a_full_inbox(self, server: Server) -> None:
        """A FIN that is stuck behind unread bytes is found out by the next ping."""
        with server.nothing_left(), RawPeer.open(server, "/never-read-but-ping/") as peer:
            flood(peer, 200 * MEBIBYTE)
            peer.close()

    def test_keepalive_does_not_blame_the_peer(self, server: Server) -> None:
        """Pongs that we do not read cannot be missed: the connection outlives several timeouts."""
        with RawPeer.open(server, "/never-read-but-ping/") as peer:
            flood(peer, 200 * MEBIBYTE)
            for _ in range(14):
                assert peer.read_frame().opcode == PING


class TestClientThatDoesNotRead:
    """Answers that the client does not read."""

    def test_echo_pushes_back(self, server: Server) -> None:
        """A client that only sends is stopped or dropped, and never fills the memory."""
        before = resident_bytes(server)
        with RawPeer.open(server, "/echo/", receive_buffer=4096) as peer:
            with contextlib.suppress(ConnectionResetError, BrokenPipeError):
                assert flood(peer, 200 * MEBIBYTE) < 100 * MEBIBYTE
            assert resident_bytes(server) - before < 100 * MEBIBYTE
            with RawPeer.open(server, "/echo/") as other:
                other.send_text("hello")
                assert other.read_message() == b"hello"

    def test_late_reader_gets_everything(self, server: Server) -> None:
        """A client that reads late, within the limits, loses nothing and keeps the order."""
        with RawPeer.open(server, "/echo/", receive_buffer=4096) as peer:
            texts = [b"%06d" % number * 500 for number in range(100)]
            peer.send(b"".join(build_frame(TEXT, text) for text in texts))
            assert [peer.read_message() for _ in texts] == texts


class TestHalfOpen:
    """A connection of which one half has ended."""

    def test_end_within_a_frame(self, server: Server) -> None:
        """FIN in the middle of a frame ends the view, without a message."""
        with server.nothing_left(), RawPeer.open(server, "/echo/") as peer:
            peer.send(build_frame(TEXT, b"never whole")[:-3])
            peer.sock.shutdown(socket.SHUT_WR)
            assert peer.read_to_eof().messages == []

    def test_end_within_a_message(self, server: Server) -> None:
        """FIN between two fragments likewise."""
        with server.nothing_left(), RawPeer.open(server, "/echo/") as peer:
            peer.send_frame(TEXT, b"first half", fin=False)
            peer.sock.shutdown(socket.SHUT_WR)
            assert peer.read_to_eof().messages == []

    def test_end_within_the_handshake(self, server: Server) -> None:
        """A client that goes away before its handshake is whole costs nothing."""
        with server.nothing_left():
            for cut in (1, 30, 100):
                with RawPeer(server.address) as peer:
                    head = f"GET /echo/ HTTP/1.1\r\nHost: {server.host}\r\nUpgrade: websocket\r\n"
                    peer.send((head + "Sec-WebSocket-Version: 13\r\n").encode()[:cut])
        assert server.get("/echo/").status == 200

    def test_pings_beside_a_view_that_does_not_read(self, server: Server) -> None:
        """Pings are the engine's business, whatever the view does."""
        with RawPeer.open(server, "/never-read/") as peer:
            peer.send_text("nobody reads this")
            peer.send_frame(PING, b"there?")
            assert peer.read_frame() == Frame(PONG, b"there?")


def test_drip_fed_message_does_not_hold_others_up(server: Server) -> None:
    """A message that comes a byte at a time shares the engine with brisk conversations."""
    drip = build_frame(TEXT, b"slow and steady")
    with RawPeer.open(server, "/echo/") as slow, RawPeer.open(server, "/echo/") as brisk:
        for byte in drip:
            slow.send(bytes([byte]))
            brisk.send_text("quick")
            assert brisk.read_message() == b"quick"
        assert slow.read_message() == b"slow and steady"
    eventually(lambda: server.get("/echo/").status == 200, 60)
