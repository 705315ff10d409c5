"""A live WebSocket in one process: our end for a view, the client's end for the test."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from typing import TYPE_CHECKING

from websockets.frames import Frame, Opcode
from websockets.protocol import Protocol, Side

from dwebsocket import _core
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dwebsocket import WebSocket
    from dwebsocket.conf import Options

HEAD = b"HTTP/1.1 101 Switching Protocols\r\n\r\n"

TIMEOUT_S = 60.0


class Client:
    """The client's end: the rules by `websockets` without I/O, the bytes by a plain socket."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.sock.settimeout(TIMEOUT_S)
        self.protocol = Protocol(Side.CLIENT, max_size=None)
        self._frames: list[Frame] = []
        self.at_end = False

    def send(self, message: str | bytes) -> None:
        """Send a text message for `str`, a binary one for `bytes`."""
        if isinstance(message, str):
            self.protocol.send_text(message.encode())
        else:
            self.protocol.send_binary(message)
        self._flush()

    def close(self, code: int | None = 1000, reason: str = "") -> None:
        """Send a close frame; the answer is left to be read."""
        self.protocol.send_close(code, reason)
        self._flush()

    def send_raw(self, data: bytes) -> None:
        """Send bytes as they are."""
        self.sock.sendall(data)

    def frame(self) -> Frame | None:
        """Read the next frame, None at the end of the stream."""
        while not self._frames and not self.at_end:
            data = self._read()
            if data:
                self.protocol.receive_data(data)
            else:
                self.protocol.receive_eof()
                self.at_end = True
            self._frames += [e for e in self.protocol.events_received() if isinstance(e, Frame)]
            self._flush()
        return self._frames.pop(0) if self._frames else None

    def receive(self) -> str | bytes | None:
        """Read the next message as `str` or `bytes`, None at the close."""
        frame = self.frame()
        if frame is None or frame.opcode is Opcode.CLOSE:
            return None
        data = bytes(frame.data)
        return data.decode() if frame.opcode is Opcode.TEXT else data

    def closing(self) -> tuple[int | None, str]:
        """Read up to the close frame and give its code and reason."""
        while (frame := self.frame()) is not None:
            if frame.opcode is Opcode.CLOSE:
                if not frame.data:
                    return None, ""
                return struct.unpack("!H", frame.data[:2])[0], bytes(frame.data[2:]).decode()
        raise AssertionError("the stream ended without a close frame")

    def vanish(self) -> None:
        """Go away without a close frame. May be repeated."""
        self.sock.close()

    def _read(self) -> bytes:
        try:
            return self.sock.recv(65536)
        except ConnectionResetError:
            return b""

    def _flush(self) -> None:
        for data in self.protocol.data_to_send():
            with contextlib.suppress(OSError):
                self.sock.sendall(data) if data else self.sock.shutdown(socket.SHUT_WR)


class LiveWebSocket:
    """Both ends of one open WebSocket."""

    def __init__(
        self, websocket: WebSocket, options: Options, subprotocol: str | None, early: bytes
    ) -> None:
        theirs, ours = socket.socketpair()
        permit = _core.Permit.claim(None)
        assert permit is not None
        connection = _core.adopt(os.dup(ours.fileno()), early, HEAD, permit, options.for_engine)
        ours.close()
        websocket._attach(connection, options, subprotocol)
        self.websocket = websocket
        self.connection = connection
        self.client = Client(theirs)
        head = theirs.recv(len(HEAD), socket.MSG_WAITALL)
        assert head == HEAD


@contextlib.contextmanager
def all_given_back() -> Iterator[None]:
    """
    No connection is open before the test, and each is given back at its end.

    The test before may have ended ahead of its connections' tasks.
    """
    eventually(lambda: _core.open_connections() == 0, what="no connection of another test")
    yield
    eventually(lambda: _core.open_connections() == 0, what="all connections given back")
