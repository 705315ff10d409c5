"""
The memory of a process when clients make it buffer as much as they can.

The limit is `WEBSOCKET_MAX_BUFFERED`. Resident memory may exceed it by a fixed amount: what is not
counted of each connection, copies on the way to Python, what the C library keeps.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from support.raw_peer import BINARY, PING, RawPeer, build_frame
from support.server import (
    GUNICORN_GEVENT,
    GUNICORN_GTHREAD,
    GUNICORN_SYNC,
    RUNSERVER,
    UVICORN,
    Kind,
    Server,
)
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from typing_extensions import Self

pytestmark = pytest.mark.extended("fills memory")

MIB = 2**20
LIMIT = 64 * MIB
# docs/security.md: the most beyond the limit and the memory that the process takes anyway.
SLACK = 80 * MIB
# How many more uvicorn makes of a message on its way, for a moment.
SERVERS_COPIES = 6
ATTACKERS = 9
ROUNDS = 3

RSV1 = 4
LARGE = 16 * MIB - 1
OFFER = {"Sec-WebSocket-Extensions": "permessage-deflate; client_no_context_takeover"}


def deflated(size: int) -> bytes:
    """Return a payload of 16 KB for 16 MiB."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    data = packer.compress(bytes(size)) + packer.flush(zlib.Z_SYNC_FLUSH)
    return data.removesuffix(b"\x00\x00\xff\xff")


BOMB = deflated(LARGE)
UNFINISHED = build_frame(BINARY, BOMB, fin=False, rsv=RSV1)
WHOLE = build_frame(BINARY, BOMB, rsv=RSV1)
PLAIN = build_frame(BINARY, bytes(LARGE))


def send_what_is_taken(peer: RawPeer, data: bytes) -> None:
    """Send until the server takes no more for a while, or has had enough."""
    peer.sock.settimeout(0.3)
    with contextlib.suppress(TimeoutError, ConnectionError):
        peer.sock.sendall(data)


@contextlib.contextmanager
def unfinished(server: Server) -> Iterator[None]:
    """Send 16 KB that become 16 MiB, and never finish the message."""
    with contextlib.ExitStack() as stack:
        for _ in range(ATTACKERS):
            peer = stack.enter_context(RawPeer.open(server, "/echo/", headers=OFFER))
            send_what_is_taken(peer, UNFINISHED)
        yield


@contextlib.contextmanager
def unread(server: Server, count: int = 2) -> Iterator[None]:
    """Have large messages echoed, and never read."""
    with contextlib.ExitStack() as stack:
        for _ in range(ATTACKERS):
            path = "/echo-uncompressed/"
            peer = stack.enter_context(RawPeer.open(server, path, receive_buffer=4096))
            send_what_is_taken(peer, PLAIN * count)
        yield


@contextlib.contextmanager
def unread_once(server: Server) -> Iterator[None]:
    """Have one each echoed: another would wait in the server, half finished."""
    with unread(server, 1):
        yield


@contextlib.contextmanager
def untaken(server: Server) -> Iterator[None]:
    """Send whole messages to a view that sits there, and hang up."""
    for _ in range(ATTACKERS):
        with RawPeer.open(server, "/sits/", headers=OFFER) as peer:
            send_what_is_taken(peer, WHOLE + build_frame(PING))
            # One after the other: the server's own copies of many at once are not the subject.
            peer.sock.settimeout(1)
            with contextlib.suppress(AssertionError, OSError):
                peer.read_frame()
            with contextlib.suppress(OSError):
                peer.sock.shutdown(socket.SHUT_RDWR)
    yield


def resident_bytes(pid: int) -> int:
    """Return a process's resident memory."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096


class Watch:
    """Looks at the memory of a process all the time, and has small connections served meanwhile."""

    def __init__(self, server: Server) -> None:
        self.most = 0
        self.echoed = 0
        self._pid = server.worker
        self._server = server
        self._is_over = threading.Event()
        self._failures: list[BaseException] = []
        self._threads = [threading.Thread(target=self._look)]
        self._threads += [
            threading.Thread(target=self._talk, args=(path,)) for path in self._paths()
        ]

    def _paths(self) -> tuple[str, ...]:
        # A handshake to an async view disturbs the sync views of a gevent worker.
        if self._server.kind is GUNICORN_GEVENT:
            return "/echo-exact/", "/echo/"
        return "/echo-exact/", "/echo/", "/async-echo/"

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._is_over.set()
        for thread in self._threads:
            thread.join()
        assert self._failures == []

    def _look(self) -> None:
        while not self._is_over.wait(0.002):
            self.most = max(self.most, resident_bytes(self._pid))

    def _talk(self, path: str) -> None:
        try:
            with RawPeer.open(self._server, path) as peer:
                while not self._is_over.wait(0.005):
                    peer.send_text("hello")
                    assert peer.read_message() == b"hello"
                    self.echoed += 1
        except BaseException as error:
            self._failures.append(error)


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("kind", "attacks", "slack"),
    [
        (GUNICORN_GTHREAD, [unfinished, unread, untaken] * ROUNDS, SLACK),
        *(
            pytest.param(
                kind,
                [unfinished, unread, untaken] * ROUNDS,
                SLACK,
                marks=pytest.mark.every("the engine's part is the same"),
            )
            for kind in (GUNICORN_GEVENT, GUNICORN_SYNC, RUNSERVER)
        ),
        # There the server puts messages together, has limits of its own, and makes several copies.
        (UVICORN, [unread_once, untaken], SLACK + SERVERS_COPIES * LARGE),
    ],
    ids=lambda value: value.name if isinstance(value, Kind) else "",
)
def test_memory_has_a_limit(
    kind: Kind,
    attacks: list[Callable[[Server], contextlib.AbstractContextManager[None]]],
    slack: int,
    own_server: Callable[..., Server],
) -> None:
    """Whatever clients do; small connections are served all the time, and all is given back."""
    server = own_server(kind, settings={"WEBSOCKET_MAX_BUFFERED": LIMIT})
    server.warm_up()
    before = resident_bytes(server.worker)
    with server.quiet(), Watch(server) as watch:
        for attack in attacks:
            echoed = watch.echoed
            with attack(server):
                eventually(lambda echoed=echoed: watch.echoed > echoed + 30, 60)
                print(f"{attack.__name__}: {(watch.most - before) / MIB:.0f} MiB at most")
    more = watch.most - before
    print(f"{kind}: {more / MIB:.0f} MiB more than before, {watch.echoed} small messages echoed")
    assert more < LIMIT + slack

    def is_given_back() -> bool:
        census = server.get("/census/").json()
        return census["buffered"] == 0 and census["connections"] == 0

    eventually(is_given_back, 60)
    eventually(lambda: resident_bytes(server.worker) < before + SLACK, 60)
