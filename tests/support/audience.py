"""
Hundreds of members of one group, and what each of them has got.

One thread reads all of them. Messages are `publisher:number`, a letter and six digits, so that what
was lost, doubled or out of order can be said of millions of deliveries in seconds.
"""

from __future__ import annotations

import re
import select
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from support.raw_peer import CLOSE, TEXT, RawPeer
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterable

    from typing_extensions import Self

    from support.server import Server

# A text frame with the letter, a colon and the digits, as servers send it.
_HEAD = b"\x81\x08"


def message(publisher: str, number: int) -> str:
    """Give a publisher's message of this number."""
    return f"{publisher}:{number:06d}"


@dataclass(eq=False)
class Member:
    """
    A member of the group.

    Attributes:
        peer: Its connection.
        server: The server.
        stream: All that it has got, as it came.
        is_over: Whether its connection has ended.
    """

    peer: RawPeer
    server: Server
    stream: bytearray = field(default_factory=bytearray)
    is_over: bool = False

    @property
    def worker(self) -> int | None:
        """The number of its process, which the view sends first; None while it has not come."""
        found = re.search(rb"\x81[\x01-\x07](\d+)", self.stream)
        return int(found[1]) if found else None

    def has(self, publisher: str, number: int) -> bool:
        """Whether it has got a message."""
        return _HEAD + message(publisher, number).encode() in self.stream

    def numbers(self, publisher: str) -> list[int]:
        """Give the numbers of a publisher's messages in the order in which they came."""
        pattern = re.escape(_HEAD + publisher.encode()) + rb":(\d{6})"
        return list(map(int, re.findall(pattern, self.stream)))

    def others(self) -> list[tuple[int, bytes]]:
        """Give the opcodes and payloads of all whole frames that are no publisher's message."""
        rest = re.sub(re.escape(_HEAD) + rb"[A-Z]:\d{6}", b"", self.stream)
        found = []
        while len(rest) > 1 and len(rest) >= 2 + rest[1]:
            found.append((rest[0] & 0x0F, rest[2 : 2 + rest[1]]))
            rest = rest[2 + rest[1] :]
        return found


class Audience:
    """All members; use as a context manager."""

    def __init__(self) -> None:
        self.members: list[Member] = []
        self._by_descriptor: dict[int, Member] = {}
        self._epoll = select.epoll()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._read)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop.set()
        self._thread.join()
        self._epoll.close()
        for member in self.members:
            member.peer.close()

    def join(self, server: Server, path: str, count: int) -> list[Member]:
        """Open so many connections, and wait until the view of each has begun."""
        joined = []
        for _ in range(count):
            peer = RawPeer.open(server, path)
            member = Member(peer, server, bytearray(peer.buffer))
            self._by_descriptor[peer.sock.fileno()] = member
            self.members.append(member)
            joined.append(member)
            self._epoll.register(peer.sock, select.EPOLLIN)
        eventually(lambda: all(member.worker for member in joined), what="all are members")
        return joined

    def leave(self) -> None:
        """Have all that are there say goodbye, and wait until the server has hung up."""
        for member in self.members:
            if not member.is_over:
                member.peer.send_close()
        self.wait_for_the_end_of(self.members)

    def wait_for_the_end_of(self, members: Iterable[Member]) -> None:
        """Wait until the server has hung up on all of these."""
        eventually(lambda: all(member.is_over for member in members), what="all are over")

    def wait_for(self, members: Iterable[Member], ends: dict[str, int]) -> None:
        """Wait until these have each publisher's last message."""
        waiting = list(members)

        def all_have() -> bool:
            waiting[:] = [
                member for member in waiting if not all(member.has(*end) for end in ends.items())
            ]
            assert not any(member.is_over for member in waiting), "a connection has ended"
            return not waiting

        eventually(all_have, 120, what="the last messages")

    def _read(self) -> None:
        while not self._stop.is_set():
            for descriptor, _ in self._epoll.poll(0.1):
                member = self._by_descriptor[descriptor]
                try:
                    data = member.peer.sock.recv(1 << 16)
                except ConnectionResetError:
                    data = b""
                member.stream += data
                if not data:
                    self._epoll.unregister(descriptor)
                    member.is_over = True


def assert_got_all(member: Member, ends: dict[str, int], first: int = 0) -> None:
    """Fail unless it got each publisher's messages from the first to the last, once, in order."""
    for publisher, last in ends.items():
        assert member.numbers(publisher) == list(range(first, last + 1)), publisher
    assert [opcode for opcode, _ in member.others()] == [TEXT], member.others()


def assert_got_the_first(member: Member, ends: dict[str, int]) -> None:
    """Fail unless it got an unbroken run from the start, and then perhaps a close frame."""
    for publisher in ends:
        found = member.numbers(publisher)
        assert found == list(range(len(found))), publisher
    opcodes = [opcode for opcode, _ in member.others()]
    assert opcodes in ([TEXT], [TEXT, CLOSE]), member.others()


def assert_got_the_rest(member: Member, ends: dict[str, int], after: int) -> None:
    """Fail unless it got an unbroken run that begins in time and goes on to the end."""
    for publisher, last in ends.items():
        found = member.numbers(publisher)
        assert found == list(range(found[0], last + 1)), publisher
        assert found[0] <= after, publisher
    assert [opcode for opcode, _ in member.others()] == [TEXT], member.others()
