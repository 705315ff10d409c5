"""
Clients that send useless frames as fast as they can.

Under an ASGI server pings and pongs do not come as far as us: its own library answers them, or
drops them.
"""

from __future__ import annotations

import contextlib
import itertools
import socket
import threading
from typing import TYPE_CHECKING

import pytest

from support.raw_peer import CLOSE, PING, PONG, TEXT, Frame, RawPeer, build_frame, close_payload
from support.selection import later
from support.server import GUNICORN_GEVENT, GUNICORN_GTHREAD, GUNICORN_SYNC, Server

if TYPE_CHECKING:
    from collections.abc import Iterator

# A quiet client has its answer long before.
PATIENCE_S = 60
FLOODING = 4
AT_ONCE = 1000

FLOODS = {
    "empty pings": build_frame(PING),
    "pings": build_frame(PING, b"x" * 100),
    "unsolicited pongs": build_frame(PONG),
}


class Flood:
    """A client that goes on until its bytes are no longer taken."""

    def __init__(self, server: Server, path: str, frame: bytes) -> None:
        self.peer = RawPeer.open(server, path)
        self._frames = frame * AT_ONCE
        self._pours = threading.Thread(target=self._pour)
        self._reads = threading.Thread(target=self._read)
        self.ending: list[Frame] = []
        self._pours.start()
        self._reads.start()

    def _pour(self) -> None:
        while not self.ending:
            self.peer.send_until_refused([self._frames])

    def _read(self) -> None:
        while not self.ending:
            frame = self.peer.read_frame()
            if frame.opcode == CLOSE:
                self.ending.append(frame)

    def join(self) -> None:
        """Waits until the server has closed it."""
        self._reads.join()
        self._pours.join()
        self.peer.close()


def drop_all(peer: RawPeer) -> None:
    """Reads whatever comes until the end."""
    with contextlib.suppress(OSError):
        while peer.sock.recv(1 << 16):
            pass


everywhere = pytest.mark.parametrize(
    ("server", "path"),
    [
        (GUNICORN_GTHREAD, "/async-echo/"),
        (GUNICORN_GTHREAD, "/echo/"),
        (GUNICORN_GEVENT, "/echo/"),
        *later((GUNICORN_SYNC, "/async-echo/")),
    ],
    indirect=["server"],
    ids=lambda value: str(value).strip("/"),
)


@pytest.fixture(params=FLOODS.values(), ids=FLOODS)
def frame(request: pytest.FixtureRequest) -> Iterator[bytes]:
    """The frame that the flood repeats."""
    return request.param


@everywhere
def test_control_frames(server: Server, path: str, frame: bytes) -> None:
    """A client that sends nothing else is closed with 1008; a quiet one is answered meanwhile."""
    with RawPeer.open(server, path) as quiet:
        quiet.sock.settimeout(PATIENCE_S)
        floods = [Flood(server, path, frame) for _ in range(FLOODING)]
        turns = 0
        while turns == 0 or not all(flood.ending for flood in floods):
            quiet.send_text(f"turn {turns}")
            assert quiet.read_message() == b"turn %d" % turns
            turns += 1
        for flood in floods:
            flood.join()
            (ending,) = flood.ending
            assert ending.payload == close_payload(1008, "too many pings and pongs")


@pytest.mark.parametrize("server", [GUNICORN_GTHREAD], indirect=True, ids=str)
def test_many_pings_among_messages(server: Server) -> None:
    """A client may ping as often as it likes if it sends messages, too."""
    count = 3000
    with RawPeer.open(server, "/echo/") as peer:
        turn = build_frame(PING, b"?") * 9 + build_frame(TEXT, b"hello")
        sender = threading.Thread(target=peer.send, args=(turn * count,))
        sender.start()
        answers = sum(peer.read_message() == b"hello" for _ in range(count))
        sender.join()
        assert answers == count


@everywhere
def test_messages(server: Server, path: str) -> None:
    """A client whose view never finds its inbox empty keeps no other view from running."""
    with RawPeer.open(server, path) as quiet, RawPeer.open(server, path) as loud:
        quiet.sock.settimeout(PATIENCE_S)
        pours = threading.Thread(
            target=loud.send_until_refused, args=(itertools.repeat(build_frame(TEXT) * AT_ONCE),)
        )
        reads = threading.Thread(target=drop_all, args=(loud,))
        pours.start()
        reads.start()
        for turn in range(100):
            quiet.send_text(f"turn {turn}")
            assert quiet.read_message() == b"turn %d" % turn
        loud.sock.shutdown(socket.SHUT_RDWR)
        pours.join()
        reads.join()
