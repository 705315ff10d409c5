"""Projects receive in many ways; none of them loses a message or outlives its client."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from support.raw_peer import CLOSE, PING, TEXT, RawPeer
from support.waiting import eventually

if TYPE_CHECKING:
    from wild_subject import Subject

LOOPS = [
    "iterating",
    "waiting",
    "until-closed",
    "polling",
    "polling-with-sleep",
    "polling-until-closed",
    "counting",
    "reading-until-closed",
    "ticking",
]


@pytest.mark.parametrize("loop", LOOPS)
def test_send_then_close(subject: Subject, loop: str) -> None:
    """Messages sent right before the client closes are processed and answered, all of them."""
    texts = [f"message {number}" for number in range(10)]
    run = f"{loop}-{time.monotonic_ns()}"
    with subject.scenario():
        with subject.client(f"/{loop}/?run={run}") as client:
            client.send("first")
            assert client.recv(20) == "first"
            for text in texts:
                client.send(text)
        eventually(lambda: not subject.running(), 60, "the view has ended")
        assert subject.get(f"/notes/?run={run}").json() == {"seen": ["first", *texts]}


@pytest.mark.parametrize("loop", [loop for loop in LOOPS if "closed" in loop])
def test_send_then_close_without_answers(subject: Subject, loop: str) -> None:
    """So they are when the view only notes them, and looks at `is_closed()` before each."""
    texts = [f"message {number}" for number in range(10)]
    run = f"{loop}-{time.monotonic_ns()}"
    with subject.scenario():
        with subject.client(f"/{loop}/?silent=1&run={run}") as client:
            for text in texts:
                client.send(text)
        # A view that has yet to begin does not run, either.
        notes = f"/notes/?run={run}"
        eventually(lambda: subject.get(notes).json() == {"seen": texts}, 60, "all were seen")
        eventually(lambda: not subject.running(), 60, "the view has ended")


def test_ticks_when_nothing_comes(subject: Subject) -> None:
    """`wait(timeout=1)` gives None after a second, and a message at once."""
    with subject.scenario(), subject.client("/ticking/?run=ticks") as client:
        assert client.recv(20) == "tick"
        client.send("hi")
        while (answer := client.recv(20)) == "tick":
            pass
        assert answer == "hi"
        assert client.recv(20) == "tick"


def test_pages_are_answered_while_views_poll(subject: Subject) -> None:
    """Two views that poll without a pause leave pages most of their speed."""
    with (
        subject.scenario(),
        subject.client("/polling/?run=busy") as one,
        subject.client("/polling/?run=busy") as two,
    ):
        for client in (one, two):
            client.send("hi")
            assert client.recv(20) == "hi"
        began = time.monotonic()
        for _ in range(10):
            subject.get("/notes/?run=busy")
        assert time.monotonic() - began < 30


def test_pings_are_no_messages(subject: Subject) -> None:
    """A client library that pings gets pongs; the view sees its messages only."""
    with subject.scenario(), RawPeer.open(subject.server, "/waiting/?run=pings") as peer:
        for number in range(3):
            peer.send_frame(PING, b"are you there")
            peer.send_frame(TEXT, b"%d" % number)
            assert peer.read_message() == b"%d" % number
        peer.send_close()
        assert peer.read_frame().opcode == CLOSE
