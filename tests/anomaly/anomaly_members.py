"""Clients of a room, and what each of them was told."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from support.deflate import DeflatePeer
from support.event_stream import Stream
from support.raw_peer import CLOSE, PING, PONG, TEXT, Frame, RawPeer

if TYPE_CHECKING:
    from support.server import Server

# The errors that a client gets from a server in which calls fail.
UNABLE = (OSError, AssertionError)
# The digits of a message's number, with which it begins.
DIGITS = 6


class Member:
    """
    A client that is in the room by a WebSocket.

    Attributes:
        seen: The numbers of messages that have come, and the answers to its own.
        has_been_told: Whether it was told that it may have missed something.
        is_over: Whether its connection has ended.
    """

    def __init__(self, server: Server, path: str) -> None:
        self.server = server
        self.seen: set[str] = set()
        self.has_been_told = False
        self.is_over = False
        self._open(server, path)

    def _open(self, server: Server, path: str) -> None:
        self._peer = RawPeer.open(server, path)

    def send(self, text: str) -> None:
        """Send a message; a connection that has ended is over."""
        try:
            self._peer.send_text(text)
        except OSError:
            self.is_over = True

    def look(self) -> None:
        """Take in what has come."""
        try:
            while not self.is_over and self._peer.is_readable(0):
                self._take()
        except UNABLE:
            # The connection has ended in the middle of a message.
            self.is_over = True

    def _take(self) -> None:
        frame = self._peer.read_frame()
        if frame.opcode == PING:
            self._peer.send_frame(PONG, frame.payload)
        elif frame.opcode == TEXT:
            self._note(self._payload(frame))
        self.is_over = frame.opcode == CLOSE

    def _payload(self, frame: Frame) -> bytes:
        return frame.payload

    def _note(self, payload: bytes) -> None:
        text = payload[:20].decode()
        self.seen.add(text[:DIGITS] if text[0].isdigit() else text)
        self.has_been_told |= text == "interrupted"

    def close(self) -> None:
        """Leave."""
        with contextlib.suppress(OSError):
            self._peer.send_close()
        self._peer.close()


class Compressing(Member):
    """One whose messages are compressed."""

    _peer: DeflatePeer

    def _open(self, server: Server, path: str) -> None:
        self._peer = DeflatePeer.offering(server, path, "permessage-deflate")

    def _payload(self, frame: Frame) -> bytes:
        return self._peer.inflated(frame)


class Streaming(Member):
    """One without WebSockets."""

    def _open(self, server: Server, path: str) -> None:
        self._stream = Stream.open(server, path)
        self._peer = self._stream.peer

    def send(self, text: str) -> None:
        """Post a message once; what was not taken is told by the answer."""
        try:
            self._stream.send(text)
        except UNABLE:
            self.seen.add(f"failed {text[:DIGITS]}")

    def look(self) -> None:
        """Take in what has come, also what was read together with an earlier event."""
        with contextlib.suppress(*UNABLE):
            self._read_events()
            super().look()
            return
        self.is_over = True

    def _take(self) -> None:
        self.is_over = not self._stream.fill()
        self._read_events()

    def _read_events(self) -> None:
        while b"\n\n" in self._stream.text:
            kind, data = self._stream.event()
            if kind == "close":
                self.is_over = True
            elif isinstance(data, str):
                self._note(data.encode())

    def close(self) -> None:
        """Leave."""
        with contextlib.suppress(*UNABLE):
            self._stream.close()
        self._peer.close()
