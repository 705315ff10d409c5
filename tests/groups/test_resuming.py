"""Clients that come back by their URL: `resume=True`."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
from django.urls import path

from dwebsocket import (
    ConnectionClosed,
    UsageError,
    WebSocketHandler,
    accept_websocket,
    group,
    signals,
)
from dwebsocket.groups import backends
from dwebsocket.groups.history import Page
from dwebsocket.groups.history.recovering import Recovering
from dwebsocket.testing import ClientWebSocket, WebSocketClient

if TYPE_CHECKING:
    from django.http import HttpRequest

    from dwebsocket.groups.history import Row
    from dwebsocket.groups.history.recorded import HistoryBackend

Override = Callable[..., None]


@pytest.fixture(autouse=True)
def _kept(override: Override) -> None:
    override(
        WEBSOCKET_GROUPS={
            "default": {
                "BACKEND": "dwebsocket.groups.process",
                "HISTORY": {"room-*": {"size": 10, "seconds": 300}},
            }
        }
    )


@accept_websocket(groups=["room-{room}"], resume=True)
def resumed(request: HttpRequest, room: str) -> None:
    """Wait for the client's end."""
    request.websocket.send("the view")  # type: ignore[attr-defined]
    request.websocket.wait_closed()  # type: ignore[attr-defined]


@accept_websocket(groups=["room-{room}"], resume=True)
async def async_resumed(request: HttpRequest, room: str) -> None:
    """Wait for the client's end."""
    await request.websocket.asend("the view")  # type: ignore[attr-defined]
    await request.websocket.await_closed()  # type: ignore[attr-defined]


class Handled(WebSocketHandler):
    """Joins as the views do."""

    groups = ["room-{room}"]  # noqa: RUF012
    resume = True

    def receive(self, message: str | bytes) -> None:
        """Repeat it."""
        self.websocket.send(message)


VIEWS = [resumed, async_resumed, Handled.as_view()]


def position(offset: int) -> str:
    """Give a position of the room's present epoch."""
    return f"{group('room-1').position().partition('-')[0]}-{offset}"


def serve(override: Override, view: Any) -> WebSocketClient:
    """Give a client of one view, at `/<room>/`."""
    override(ROOT_URLCONF=(path("<path:room>/", view, name="room"),), MIDDLEWARE=[])
    return WebSocketClient()


def told(recovered: bool, missed: int, at: int) -> dict[str, Any]:
    """Give what a client is told when it has come back."""
    return {
        "group": "room-1",
        "recovered": recovered,
        "missed": missed,
        "position": position(at),
    }


def message(offset: int, data: str) -> dict[str, Any]:
    """Give a numbered message."""
    return {"group": "room-1", "position": position(offset), "data": data}


def of_the_group(websocket: ClientWebSocket) -> Any:
    """Receive what the group sends next: the view's own message may come before or behind it."""
    text = websocket.receive()
    if text == "the view":
        text = websocket.receive()
    return json.loads(text)


@pytest.mark.parametrize("view", VIEWS)
def test_what_was_missed_comes_before_the_view(override: Override, view: Any) -> None:
    """Then the client is told where it is, then come the view and what is published."""
    client = serve(override, view)
    group("room-1").send("one")
    group("room-1").send("two")
    with client.websocket(f"/1/?since=room-1:{position(1)}") as websocket:
        assert websocket.receive_json() == message(2, "two")
        assert websocket.receive_json() == told(True, 1, 2)
        group("room-1").send("three")
        assert of_the_group(websocket) == message(3, "three")


def twice(request: HttpRequest, room: str) -> list[str]:
    """Name one group twice, as a query for the rooms of a user may."""
    return [f"room-{room}", f"room-{room}"]


def test_a_group_that_is_named_twice(override: Override) -> None:
    """Is joined once: nothing comes twice, and its end is told when the view leaves it."""
    told_of: list[str] = []

    @accept_websocket(groups=twice, resume=True)
    def view(request: Any, room: str) -> None:
        request.websocket.receive()
        request.websocket.leave("room-1")
        request.websocket.send(f"left: {told_of}")

    def on_left(sender: type, group: Any, **_: Any) -> None:
        told_of.append(group.name)

    client = serve(override, view)
    group("room-1").send("one")
    group("room-1").send("two")
    signals.group_left.connect(on_left)
    try:
        with client.websocket(f"/1/?since=room-1:{position(1)}") as websocket:
            assert websocket.receive_json() == message(2, "two")
            assert websocket.receive_json() == told(True, 1, 2)
            websocket.send("leave")
            assert websocket.receive() == "left: ['room-1']"
    finally:
        signals.group_left.disconnect(on_left)


def test_a_member_before_the_view(override: Override) -> None:
    """It goes on, and is told where it is."""
    client = serve(override, resumed)
    group("room-1").send("one")

    def on_opened(sender: type, websocket: Any, **_: Any) -> None:
        websocket.join("room-1")

    signals.websocket_opened.connect(on_opened)
    try:
        with client.websocket("/1/") as websocket:
            assert websocket.receive_json() == told(True, 0, 1)
            group("room-1").send("two")
            assert of_the_group(websocket) == message(2, "two")
    finally:
        signals.websocket_opened.disconnect(on_opened)


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("compression", [False, True])
def test_more_was_missed_than_goes_out_at_once(
    override: Override, view: Any, *, compression: bool
) -> None:
    """All of it comes in order, small and large messages, and what is published behind it."""
    client = serve(override, view)
    texts = [f"{number}" * (150_000 if number == 4 else 20_000) for number in range(9)]
    for text in texts:
        group("room-1").send(text)
    url = f"/1/?since=room-1:{position(0)}"
    with client.websocket(url, compression=compression) as websocket:
        for offset, text in enumerate(texts, 1):
            assert websocket.receive_json() == message(offset, text)
        assert websocket.receive_json() == told(True, 9, 9)
        group("room-1").send("last" * 1000)
        assert of_the_group(websocket) == message(10, "last" * 1000)


@pytest.mark.parametrize("view", VIEWS)
def test_without_what_the_connection_before_was_excluded_from(
    override: Override, view: Any
) -> None:
    """When the URL names it; a client learns the name in the summary when it asks for it."""
    client = serve(override, view)
    with client.websocket("/1/?former=") as websocket:
        former = websocket.receive_json().pop("id")
    group("room-1").send("its own", exclude=former)
    group("room-1").send("of others", exclude="some other")
    came_back = f"/1/?since=room-1:{position(0)}&former="
    with client.websocket(came_back + former) as websocket:
        assert of_the_group(websocket) == message(2, "of others")
        summary = of_the_group(websocket)
        assert summary.pop("id") not in ("", former)
        assert summary == told(True, 1, 2)
    with client.websocket(came_back) as websocket:
        assert of_the_group(websocket) == message(1, "its own")


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize(
    ("query", "recovered"),
    [
        ("", True),
        ("?since=room-2:0000000000000000-1", True),
        ("?since=room-1:0000000000000000-1", False),
        ("?since=room-1:nonsense", False),
        ("?since=room-1", False),
        ("?since=room-1:", False),
        ("?since=nonsense", True),
    ],
)
def test_without_a_position_of_use(
    override: Override, view: Any, query: str, *, recovered: bool
) -> None:
    """Nothing old comes, and the client is told whether it has lost something."""
    client = serve(override, view)
    group("room-1").send("one")
    with client.websocket(f"/1/{query}") as websocket:
        assert websocket.receive_json() == told(recovered, 0, 1)


@pytest.mark.parametrize("view", VIEWS)
def test_told_before_what_is_published_then(
    override: Override, monkeypatch: pytest.MonkeyPatch, view: Any
) -> None:
    """Else a client that goes before it is told would come back from behind a gap."""
    client = serve(override, view)
    group("room-1").send("one")
    has_received = threading.Event()

    def publish() -> None:
        group("room-1").send("two")
        assert has_received.wait(60)

    def join_at(self: HistoryBackend, *args: Any, **options: Any) -> Any:
        joined = to_the_original(self, *args, **options)
        publish()
        return joined

    async def ajoin_at(self: HistoryBackend, *args: Any, **options: Any) -> Any:
        joined = await to_the_async_original(self, *args, **options)
        await asyncio.to_thread(publish)
        return joined

    backend = type(backends.backend("default"))
    to_the_original, to_the_async_original = backend.join_at, backend.ajoin_at
    monkeypatch.setattr(backend, "join_at", join_at)
    monkeypatch.setattr(backend, "ajoin_at", ajoin_at)
    with client.websocket("/1/?since=room-1:0000000000000000-1") as websocket:
        assert websocket.receive_json() == told(False, 0, 1)
        has_received.set()
        assert of_the_group(websocket) == message(2, "two")


@pytest.mark.parametrize("view", VIEWS)
def test_backend_that_is_lost_behind_the_handshake(
    override: Override,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    view: Any,
) -> None:
    """The client is to come again later; that is no error of the view."""
    client = serve(override, view)

    def read_history(self: HistoryBackend, *args: Any) -> Any:
        raise self.unavailable("it is away")

    async def aread_history(self: HistoryBackend, *args: Any) -> Any:
        raise self.unavailable("it is away")

    backend = type(backends.backend("default"))
    monkeypatch.setattr(backend, "read_history", read_history)
    monkeypatch.setattr(backend, "aread_history", aread_history)
    with client.websocket("/1/") as websocket:
        with pytest.raises(ConnectionClosed):
            websocket.receive()
        assert (websocket.close_code, websocket.close_reason) == (1013, "groups unavailable")
    found = [each for each in caplog.records if each.__dict__["event"] == "websocket.not_joined"]
    (record,) = found
    assert record.exc_info is None
    assert "it is away" in record.message


EPOCH = 0xABC


def page(*offsets: int, head: int, epoch: int = EPOCH) -> Page:
    """Give a page of the log."""
    rows: list[Row] = [(offset, 0, str(offset), []) for offset in offsets]
    return Page((epoch, head), rows, (epoch, offsets[-1] if offsets else head))


def sent(offset: int, epoch: int = EPOCH) -> dict[str, Any]:
    """Give the message for an entry of such a page."""
    return {"group": "room-1", "position": f"{epoch:016x}-{offset}", "data": str(offset)}


def said(recovered: bool, missed: int, offset: int, epoch: int = EPOCH) -> dict[str, Any]:
    """Give what a client is told."""
    position = f"{epoch:016x}-{offset}"
    return {"group": "room-1", "recovered": recovered, "missed": missed, "position": position}


PAGES = {
    "one page": ([page(6, 7, head=7)], [sent(6), sent(7), said(True, 2, 7)]),
    "nothing missed": ([page(head=5)], [said(True, 0, 5)]),
    "several pages": (
        [page(6, head=7), page(7, head=7), page(8, head=8)],
        [sent(6), sent(7), said(True, 2, 7), sent(8)],
    ),
    "too old": ([page(7, head=8), page(9, head=9)], [sent(9), said(False, 1, 9)]),
    "lost meanwhile": (
        [page(6, head=7), page(9, head=9)],
        [sent(6), said(False, 1, 8), sent(9)],
    ),
    "lost when told": (
        [page(6, head=6), page(9, head=9)],
        [sent(6), said(True, 1, 6), said(False, 1, 8), sent(9)],
    ),
    "begun anew meanwhile": (
        [page(head=5), page(1, head=1, epoch=1), page(head=0, epoch=2)],
        [said(True, 0, 5), said(False, 0, 0, 1), sent(1, 1), said(False, 1, 0, 2)],
    ),
}


@pytest.mark.parametrize(("pages", "expected"), PAGES.values(), ids=PAGES)
def test_each_gap_is_told_before_what_is_behind_it(
    pages: list[Page], expected: list[dict[str, Any]]
) -> None:
    """A client that goes at any moment comes back from where it has no gap, or was told."""
    steps = Recovering(
        group("room-1"),
        since=f"{EPOCH:016x}-5",
        partial=False,
        numbered=True,
        former=None,
        tells=True,
    )
    first, *others = pages
    texts = [*steps.first(first)]
    for each in others:
        texts += steps.more(each)
    assert [json.loads(text) for text in texts] == expected


def test_needs_a_history(override: Override) -> None:
    """Which the error names."""
    view = accept_websocket(groups=["hall"], resume=True)(lambda request, room: None)
    client = serve(override, view)
    with pytest.raises(UsageError, match="resume=True needs a history"):
        client.websocket("/1/").__enter__()


@pytest.mark.parametrize("make", [lambda: accept_websocket(resume=True), None])
def test_needs_groups(make: Any) -> None:
    """Of which it is a part."""

    class Groupless(WebSocketHandler):
        resume = True

    with pytest.raises(TypeError, match="needs groups"):
        (make or Groupless.as_view)()
