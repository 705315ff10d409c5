"""
Frames between a process that ends and its heir.

Four bytes for the length of all that follows, one for the kind, four for the length of the head,
the head as JSON, and bytes that it counts. A frame of kind `GIVE` comes with a descriptor.
"""

from __future__ import annotations

import json
import os
import socket
import struct
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from dwebsocket.compat import unpatched

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dwebsocket.compat.socket import system

# From the process that ends: a connection is offered, given, or not to be had any more.
OFFER, GIVE, FORGET = 1, 2, 3
# From the heir: it has loaded the project's code, and takes offers.
READY = 10
# From the heir: it would go on with it, it would not, it does, it cannot after all.
YES, NO, TAKEN, LOST = 11, 12, 13, 14
# The heads of these.
_ANSWERS: dict[int, dict[str, type]] = {
    READY: {},
    YES: {"number": int, "begun": dict, "marks": list, "places": dict},
    NO: {"number": int, "code": int, "reason": str, "elsewhere": bool, "why": str},
    TAKEN: {"number": int},
    LOST: {"number": int},
}

_HEAD_BYTES = 9
_READ_BYTES = 256 * 1024
# That come with one read at most.
_DESCRIPTORS = 16
# Programs that this process starts do not inherit the clients' connections. 0 where macOS has none.
_CLOSE_ON_EXEC: int = getattr(socket, "MSG_CMSG_CLOEXEC", 0)
# What one connection can hold, and more: nobody else can connect, so it guards against errors only.
_MAX_FRAME_BYTES = 1 << 30


class Malformed(Exception):
    """The other process does not send such frames."""


class Frame(NamedTuple):
    """
    One frame.

    Attributes:
        kind: One of the constants above.
        head: What it says.
        body: Bytes that belong to it.
        descriptor: Of a frame that gives a connection; its receiver closes it.
    """

    kind: int
    head: dict[str, Any]
    body: bytes = b""
    descriptor: int | None = None


class Link:
    """
    The connection of two processes. One thread at a time may send, and one may receive.

    Args:
        connection: A connected Unix socket of the system, also in a patched process. It belongs to
            this from now on.
    """

    def __init__(self, connection: system.socket) -> None:
        # `socket.send_fds` is declared for the derived class only.
        self._socket: Any = connection
        self._buffer = bytearray()
        # Frames that go out with the next one.
        self._unsent: list[bytes] = []
        self._descriptors: deque[int] = deque()

    def put(self, frame: Frame) -> None:
        """Has a frame go out with the next one, or by :meth:`flush`."""
        head = json.dumps(frame.head, separators=(",", ":")).encode()
        length = 5 + len(head) + len(frame.body)
        begin = length.to_bytes(4, "big") + bytes([frame.kind]) + len(head).to_bytes(4, "big")
        self._unsent += (begin, head, frame.body)

    def flush(self) -> None:
        """
        Sends what was put. Waits while the other process takes nothing, up to the socket's timeout.

        Raises:
            OSError: The other process is gone, or does not take it in time.
        """
        if self._unsent:
            unsent, self._unsent = self._unsent, []
            self._socket.sendall(b"".join(unsent))

    def send(self, frame: Frame) -> None:
        """
        Sends a frame at once.

        Raises:
            OSError: As :meth:`flush`.
        """
        self.put(frame)
        if frame.descriptor is not None:
            data = memoryview(b"".join(self._unsent))
            self._unsent = []
            sent = socket.send_fds(self._socket, [data], [frame.descriptor])
            self._socket.sendall(data[sent:])
        self.flush()

    def frames(self) -> Iterator[Frame]:
        """
        Yields the frames that come, to the end of the connection.

        Raises:
            OSError: The connection is broken.
            Malformed: It brings something else.
        """
        while True:
            yield from self.received()
            if not self.read():
                return

    def read(self, *, waits: bool = True) -> bool:
        """
        Reads bytes that come; false at the end of the connection.

        Raises:
            BlockingIOError: There are none now, and it is not to wait.
            OSError: The connection is broken.
            Malformed: Descriptors are lost.
        """
        # `socket.recv_fds` ignores its flags.
        flags = _CLOSE_ON_EXEC if waits else _CLOSE_ON_EXEC | socket.MSG_DONTWAIT
        space = socket.CMSG_LEN(_DESCRIPTORS * struct.calcsize("i"))
        data, ancillary, found, _ = self._socket.recvmsg(_READ_BYTES, space, flags)
        for level, kind, content in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                self._descriptors.extend(each for (each,) in struct.iter_unpack("i", content))
        if not _CLOSE_ON_EXEC:
            for each in self._descriptors:
                os.set_inheritable(each, False)  # noqa: FBT003
        if found & socket.MSG_CTRUNC:
            # This process may have no descriptor left. A frame would get that of the next one:
            # the connection of another client.
            raise Malformed("descriptors are lost")
        self._buffer += data
        return bool(data)

    def received(self) -> Iterator[Frame]:
        """
        Returns the frames that have been read as a whole.

        Raises:
            Malformed: It is something else.
        """
        return iter(self._next, None)

    def _next(self) -> Frame | None:
        buffer = self._buffer
        if len(buffer) < _HEAD_BYTES:
            return None
        length = int.from_bytes(buffer[:4], "big")
        head_length = int.from_bytes(buffer[5:_HEAD_BYTES], "big")
        if length > _MAX_FRAME_BYTES or head_length + 5 > length:
            raise Malformed
        if len(buffer) < 4 + length:
            return None
        kind, end = buffer[4], _HEAD_BYTES + head_length
        head, body = bytes(buffer[_HEAD_BYTES:end]), bytes(buffer[end : 4 + length])
        del buffer[: 4 + length]
        descriptor = None
        if kind == GIVE:
            if not self._descriptors:
                raise Malformed
            descriptor = self._descriptors.popleft()
        return Frame(kind, _read_head(head), body, descriptor)

    def shut_down(self) -> None:
        """Ends the connection both ways. Frames that have come can still be read."""
        # The other process may have ended it already.
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Closes it, and descriptors that came and belong to no frame."""
        self._socket.close()
        while self._descriptors:
            unpatched.close_descriptor(self._descriptors.popleft())


def _read_head(data: bytes) -> dict[str, Any]:
    try:
        found = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise Malformed from error
    if not isinstance(found, dict):
        raise Malformed
    return found


def check_answer(frame: Frame) -> None:
    """Raises ``Malformed`` unless an heir may say that."""
    kinds = _ANSWERS.get(frame.kind)
    if kinds is None or not all(isinstance(frame.head.get(k), kinds[k]) for k in kinds):
        raise Malformed
