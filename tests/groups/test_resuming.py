"""Clients that come back by their URL: `resume=True`, and the tags for their pages."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
from django.template import Context, Engine
from django.test import RequestFactory
from django.urls import path

from dwebsocket import (
    UsageError,
    WebSocketHandler,
    accept_websocket,
    group,
)
from dwebsocket.testing import WebSocketClient

if TYPE_CHECKING:
    from django.http import HttpRequest

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


ENGINE = Engine(libraries={"dwebsocket": "dwebsocket.templatetags.dwebsocket"})
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
        found = [websocket.receive()]
        if found == ["the view"]:
            found = [websocket.receive()]
    assert [json.loads(text) for text in found] == [message(3, "three")]


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize(
    ("query", "recovered"),
    [
        ("", True),
        ("?since=room-2:0000000000000000-1", True),
        ("?since=room-1:0000000000000000-1", False),
        ("?since=room-1:nonsense", False),
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


@pytest.mark.parametrize(
    ("secure", "address"), [(False, "ws://testserver/1/"), (True, "wss://testserver/1/")]
)
def test_address_of_a_view(override: Override, address: str, *, secure: bool) -> None:
    """For the page's own scheme and host; without a request a path."""
    serve(override, resumed)
    template = ENGINE.from_string("{% load dwebsocket %}{% websocket_url 'room' room=1 %}")
    request = RequestFactory().get("/", secure=secure)
    assert template.render(Context({"request": request})) == address
    assert template.render(Context()) == "/1/"


@pytest.mark.parametrize("value", ["room-1", group("room-1")])
def test_position_of_a_group(value: Any) -> None:
    """By its name, too."""
    group("room-1").send("one")
    template = ENGINE.from_string("{% load dwebsocket %}{{ group|position }}")
    assert template.render(Context({"group": value})) == position(1)
