"""Projects send from threads, and from views that never receive."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from websockets.exceptions import ConnectionClosed

from support.waiting import eventually

if TYPE_CHECKING:
    from wild_subject import Subject


def test_clock(subject: Subject) -> None:
    """A view that sends for ever and never receives ends when the browser goes."""
    with subject.scenario(), subject.client("/clock/") as page:
        assert [json.loads(page.recv(20))["count"] for _ in range(3)] == [1, 2, 3]


def test_heartbeat_of_empty_messages(subject: Subject) -> None:
    """A thread sends `''` until `is_closed()`, while the view iterates."""
    with subject.scenario(), subject.client("/heartbeat/") as page:
        assert page.recv(20) == ""
        page.send("hi")
        eventually(lambda: page.recv(20) == "hi", what="the answer, between beats")
        assert page.recv(20) == ""


def test_heartbeat_of_json(subject: Subject) -> None:
    """A thread sends JSON until asking or sending fails, while the view waits."""
    with subject.scenario(), subject.client("/heartbeat-json/") as page:
        assert json.loads(page.recv(20)) == {"type": "ping"}
        page.send(json.dumps({"number": 7}))
        answer = {"type": "answer", "to": 7}
        eventually(lambda: json.loads(page.recv(20)) == answer, what="the answer, between beats")
        assert json.loads(page.recv(20)) == {"type": "ping"}


def test_heartbeat_alone(subject: Subject) -> None:
    """A view that only sends, while `is_closed()` is false, ends when the browser goes."""
    with subject.scenario(), subject.client("/heartbeat-alone/") as page:
        assert [page.recv(20) for _ in range(3)] == [""] * 3


def test_queue_between_pages_and_the_view(subject: Subject) -> None:
    """A view sends what pages queue until `is_closed()`; it never receives."""
    with subject.scenario(), subject.client("/notifications/ada/") as page:
        assert page.recv(20) == "ready"
        for text in ("one", "two"):
            assert subject.get(f"/notify/ada/?text={text}").status == 200
            assert page.recv(20) == text


def test_queue_that_a_thread_pumps(subject: Subject) -> None:
    """The view hands all that iteration gives to a thread, the final None as its end."""
    with subject.scenario(), subject.client("/pump-of-a-queue/bob/") as page:
        assert page.recv(20) == "ready"
        subject.get("/notify/bob/?text=pushed")
        assert page.recv(20) == "pushed"
        page.send("typed")
        assert page.recv(20) == "typed"


def test_thread_that_nothing_stops(subject: Subject) -> None:
    """A thread that swallows every exception goes on for ever, and costs nothing."""
    with subject.scenario(stays=True), subject.client("/stubborn/") as page:
        page.send("hi")
        assert page.recv(20) == "HI"


def test_view_ends_before_its_thread(subject: Subject) -> None:
    """A thread that reads until an exception gets one after the view has ended."""
    with subject.scenario(), subject.client("/early-view/") as page:
        assert page.recv(20) == "bye"
        with pytest.raises(ConnectionClosed):
            page.recv(20)


def test_thread_that_checks_for_none(subject: Subject) -> None:
    """A thread gets the None, and the view that never receives waits for it."""
    with subject.scenario(), subject.client("/naive-thread/") as page:
        page.send("hi")
        assert page.recv(20) == "hi"


def test_binary_by_the_protocol(subject: Subject) -> None:
    """Bytes come as they are, and `protocol.write(…, binary=True)` sends them so."""
    with subject.scenario(), subject.client("/upload/") as page:
        for data in (b"\x00\xff\xfe", bytes(range(256)) * 300):
            page.send(data)
            assert page.recv(20) == data[::-1]


def test_bytes_are_appended(subject: Subject) -> None:
    """Messages are bytes, and bytes are sent as text."""
    with subject.scenario(), subject.client("/appended/") as page:
        page.send("this")
        assert page.recv(20) == "this received"


def test_close_with_code_and_reason(subject: Subject) -> None:
    """The view's own code and its reason, in bytes, reach the browser."""
    with subject.scenario(), subject.client("/farewell/") as page:
        page.send("hi")
        with pytest.raises(ConnectionClosed):
            page.recv(20)
        assert (page.close_code, page.close_reason) == (4001, "enough")


def test_handle_is_called(subject: Subject) -> None:
    """A function in `handle` gets the opcode of each message that is received."""
    with subject.scenario(), subject.client("/handled/") as page:
        page.send("text")
        page.send(b"binary")
        assert json.loads(page.recv(20)) == [1, 2]
        eventually(lambda: not subject.running(), 60)
