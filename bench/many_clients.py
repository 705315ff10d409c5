"""
Many clients at once, of WebSockets or of server-sent events, in one thread.

They keep the bytes and look at nothing but their end, so that they are quick. The bytes are
compared afterwards: :meth:`Fleet.take`.
"""

from __future__ import annotations

import json
import select
import socket
import time
from typing import TYPE_CHECKING, Any

from machine import BenchError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from typing_extensions import Self

UPGRADE = (
    "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
)
#: The parameter of a URL that asks for server-sent events.
EVENTS = "transport=sse"
#: The end of a response's head, and of the event that says that a stream is open.
HEAD_END = b"\r\n\r\n"
OPENED = b'"subprotocol":""}\n\n'
PATIENCE_S = 300
AT_ONCE = 1 << 18
# Client addresses: a port is not enough for all connections to one server.
SPREAD = 250


class Fleet:
    """Clients of one server; a context manager that closes them."""

    def __init__(self, address: str) -> None:
        """``address`` is the server's, with its port."""
        self._address = address
        host, port = address.split(":")
        self._server = host, int(port)
        self._epoll = select.epoll()
        self._sockets: dict[int, socket.socket] = {}
        self._came: dict[int, bytearray] = {}
        self._requests: dict[int, bytes] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        for client in self._sockets.values():
            client.close()
        self._epoll.close()

    def __len__(self) -> int:
        return len(self._sockets)

    def open(self, path: str, count: int, *, at_once: int = 0, until: bytes = b"") -> float:
        """
        Open so many clients, ``at_once`` of them at a time; without it all together.

        Returns when each has got ``until``, else when it is open: the seconds.
        """
        is_stream = EVENTS in path
        until = until or (OPENED if is_stream else HEAD_END)
        request = (
            f"GET {path} HTTP/1.1\r\nHost: {self._address}\r\nOrigin: http://{self._address}\r\n"
            f"{'' if is_stream else UPGRADE}\r\n"
        ).encode()
        began = time.monotonic()
        missing: set[int] = set()
        for number in range(count):
            missing.add(self._connect(number, request))
            if at_once and len(missing) >= at_once:
                self._read(missing, until, less_than=at_once)
        self._read(missing, until)
        return time.monotonic() - began

    def _connect(self, number: int, request: bytes) -> int:
        client = socket.socket()
        client.setblocking(False)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client.bind((f"127.0.{1 + number // SPREAD % SPREAD}.{1 + number % SPREAD}", 0))
        client.connect_ex(self._server)
        found = client.fileno()
        self._sockets[found], self._came[found] = client, bytearray()
        self._requests[found] = request
        self._epoll.register(found, select.EPOLLIN | select.EPOLLOUT)
        return found

    def send(self, texts: list[str]) -> None:
        """Send short texts from each client, all together."""
        data = b"".join(map(frame, texts))
        for client in self._sockets.values():
            try:
                client.sendall(data)
            except BlockingIOError as error:
                raise BenchError("the socket of a client is full") from error

    def read_until(self, tail: bytes) -> None:
        """Read until each client has got ``tail`` since the last :meth:`take`."""
        missing = {found for found, came in self._came.items() if tail not in came}
        self._read(missing, tail)

    def read_for(self, seconds: float, *, rests: float = 0.0) -> int:
        """
        Read whatever comes within that time, and return how many bytes came.

        ``rests`` seconds pass between two looks: a server that has to wake this process for each
        message works more than one whose clients are on other machines.
        """
        until, came = time.monotonic() + seconds, 0
        while (left := until - time.monotonic()) > 0:
            time.sleep(min(rests, left))
            came += sum(size for _, size in self._look(0.0 if rests else left))
        return came

    def _read(self, missing: set[int], until: bytes, less_than: int = 1) -> None:
        """Read until fewer clients than that lack ``until``. Those that have it leave the set."""
        give_up = time.monotonic() + PATIENCE_S
        while len(missing) >= less_than:
            for found, size in self._look(1.0):
                # It may lie across two reads.
                if found in missing and until in self._came[found][-size - len(until) :]:
                    missing.discard(found)
            if time.monotonic() > give_up:
                some = bytes(self._came[next(iter(missing))][-200:])
                raise BenchError(f"{len(missing)} clients wait for {until!r}; one has {some!r}")

    def _look(self, seconds: float) -> Iterator[tuple[int, int]]:
        """Serve the sockets once; gives those that got something, and how many bytes."""
        for found, events in self._epoll.poll(seconds):
            client = self._sockets[found]
            if found in self._requests:
                client.sendall(self._requests.pop(found))
                self._epoll.modify(found, select.EPOLLIN)
            elif events:
                try:
                    piece = client.recv(AT_ONCE)
                except BlockingIOError:
                    continue
                if not piece:
                    self._epoll.unregister(found)
                    raise BenchError(f"a client was cut off: {bytes(self._came[found][-200:])!r}")
                self._came[found] += piece
                yield found, len(piece)

    def take(self) -> list[bytes]:
        """Return the bytes that each client has got, and forget them."""
        found = [bytes(came) for came in self._came.values()]
        for came in self._came.values():
            came.clear()
        return found


def frame(text: str) -> bytes:
    """Return a text of less than 64 KiB in a frame whose mask changes nothing."""
    payload = text.encode()
    size = bytes([0x80 | len(payload)])
    if len(payload) > 125:
        size = b"\xfe" + len(payload).to_bytes(2, "big")
    return b"\x81" + size + bytes(4) + payload


def messages(came: bytes) -> list[str]:
    """Return the texts in the bytes of a client, also behind the head of its response."""
    if came.startswith(b"HTTP/1.1 "):
        head, _, came = came.partition(HEAD_END)
        if b" 101 " not in head and b" 200 " not in head:
            raise BenchError(f"no connection: {head!r}")
    return list(_of_events(came) if came.startswith((b"event:", b":")) else _of_frames(came))


def _of_events(came: bytes) -> Iterator[str]:
    for event in came.decode().split("\n\n"):
        kind, _, data = event.partition("\n")
        if kind == "event: message":
            yield "\n".join(line.removeprefix("data: ") for line in data.split("\n"))


def _of_frames(came: bytes) -> Iterator[str]:
    at = 0
    while at < len(came):
        first, size = came[at], came[at + 1]
        at += 2
        if size >= 126:
            width = 2 if size == 126 else 8
            size = int.from_bytes(came[at : at + width], "big")
            at += width
        if first != 0x81:
            raise BenchError(f"no text: {came[at - 2 : at + 40]!r}")
        yield came[at : at + size].decode()
        at += size


def numbered(texts: list[str]) -> list[str]:
    """Return the messages in texts of JSON with positions, which have to be in order."""
    found = [json.loads(text) for text in texts]
    offsets = [int(one["position"].rpartition("-")[2]) for one in found if "data" in one]
    if offsets != list(range(offsets[0], offsets[0] + len(offsets)) if offsets else []):
        raise BenchError(f"positions with a gap: {offsets}")
    return [one["data"] for one in found if "data" in one]


def ask(address: str, path: str) -> Any:
    """Return the server's answer to a plain GET: JSON."""
    host, port = address.split(":")
    request = f"GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n"
    answer = b""
    with socket.create_connection((host, int(port)), timeout=PATIENCE_S) as client:
        client.sendall(request.encode())
        while piece := client.recv(65536):
            answer += piece
    head, _, body = answer.partition(HEAD_END)
    if b" 200 " not in head.partition(b"\r\n")[0]:
        raise BenchError(f"{path} answered {head!r}")
    return json.loads(body)
