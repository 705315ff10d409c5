"""Projects show the output of processes in the browser, and send its user's input to them."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest
from websockets.exceptions import ConnectionClosed

from support.raw_peer import CLOSE, TEXT, RawPeer
from support.selection import later
from support.waiting import pause

if TYPE_CHECKING:
    from collections.abc import Callable

    from wild_subject import Subject

LOG = (b"x" * 1023 + b"\n") * 20480
DUMP = b"x" * (20 << 20)


def test_reader_thread_ends_an_endless_log(subject: Subject) -> None:
    """The view pushes lines; a thread that reads until an exception kills the process."""
    with subject.scenario(), subject.client("/tail/") as page:
        for number in range(5):
            assert page.recv(20) == f"{number}\n"
        page.send("ignored")


def test_reader_thread_outlives_a_log_that_ends(subject: Subject) -> None:
    """The process and the view end first; the thread that reads until an exception ends, too."""
    with subject.scenario(), subject.client("/build/") as page:
        assert [page.recv(20) for _ in range(5)] == [f"line {n}" for n in range(5)]
        with pytest.raises(ConnectionClosed):
            page.recv(20)


def test_push_ends_when_send_fails(subject: Subject) -> None:
    """A view that pushes an endless log and never reads ends when the browser goes."""
    with subject.scenario(), subject.client("/push-until-refused/") as page:
        for number in range(3):
            assert page.recv(20) == f"{number}\n"


def test_console(subject: Subject) -> None:
    """A thread pumps a program's output while the view reads what is typed; both end."""
    with subject.scenario(), subject.client("/console/") as page:
        for text in ("ls", "echo", "exit"):
            page.send(text)
            assert page.recv(20) == f"{text}\n"


def test_log_is_followed_until_closed(subject: Subject) -> None:
    """A thread pumps an endless log while `is_closed()` is false and the view waits."""
    with subject.scenario(), subject.client("/follow/") as page:
        for number in range(5):
            assert page.recv(20) == str(number)


def read_slowly(peer: RawPeer, enough: Callable[[int], bool]) -> bytes:
    """Read messages with pauses, in which the pipe is full, until `enough` or the close."""
    parts: list[bytes] = []
    size = pauses = 0
    while not enough(size):
        frame = peer.read_frame()
        if frame.opcode == CLOSE:
            break
        assert frame.opcode == TEXT
        parts.append(frame.payload)
        size += len(frame.payload)
        if size >> 20 > pauses:
            pauses += 1
            pause(0.1)
    return b"".join(parts)


@pytest.mark.parametrize("by", ["thread", *later("view")])
def test_all_of_20_mib_arrive(subject: Subject, by: str) -> None:
    """20 MiB, sent by a helper thread or by the view, arrive whole at a slow client."""
    path, expected = {"thread": ("/log/", LOG), "view": ("/dump/", DUMP)}[by]
    with (
        subject.scenario(),
        RawPeer.open(subject.server, path, receive_buffer=64 << 10) as peer,
    ):
        received = read_slowly(peer, lambda size: size == len(expected))
        assert len(received) == len(expected)
        assert hashlib.sha256(received).digest() == hashlib.sha256(expected).digest()
        peer.send_close()


@pytest.mark.parametrize("by", ["thread", "view"])
def test_client_leaves_within_20_mib(subject: Subject, by: str) -> None:
    """The sender ends when a slow client leaves in the middle."""
    path = {"thread": "/log/", "view": "/dump/"}[by]
    with (
        subject.scenario(),
        RawPeer.open(subject.server, path, receive_buffer=64 << 10) as peer,
    ):
        read_slowly(peer, lambda size: size > 3 << 20)
        peer.vanish()
