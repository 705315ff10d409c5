"""What docs/presence.md shows is executed."""

from __future__ import annotations

import json
import re
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from django.urls import path
from pages import files_of, snippet_of, templates

from dwebsocket import accept_websocket, group
from dwebsocket.testing import WebSocketClient, websockets_of_a_test
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

BLOCKS = files_of("presence.md")


class User(SimpleNamespace):
    """A user of a middleware of the project's own."""

    is_authenticated = True

    def get_username(self) -> str:
        """Give the name."""
        return str(self.name)


def named(get_response: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Sign in by a header."""

    def middleware(request: Any) -> Any:
        name = request.headers["X-User"]
        request.user = User(pk=name, name=name.title())
        return get_response(request)

    return middleware


@pytest.fixture
def site(override: Callable[..., None], tmp_path: Path) -> Iterator[ModuleType]:
    """The page's site."""
    settings: dict[str, dict[str, dict[str, object]]] = {}
    exec(BLOCKS["settings.py"], settings)
    views = ModuleType("views")
    exec(BLOCKS["chat/views.py"], vars(views))
    (tmp_path / "chat.html").write_text(BLOCKS["chat/templates/chat.html"])
    backend = {"BACKEND": "dwebsocket.groups.process"}
    override(
        WEBSOCKET_GROUPS={"default": {**settings["WEBSOCKET_GROUPS"]["default"], **backend}},
        MIDDLEWARE=[f"{__name__}.named"],
        ROOT_URLCONF=(
            path("ws/<room>/", views.chat, name="chat"),
            path("<room>/", views.page),
        ),
        TEMPLATES=templates(tmp_path),
    )
    with websockets_of_a_test():
        yield views


def test_the_page_and_its_stream(site: ModuleType) -> None:
    """The view says who is here, and others are told who comes."""
    client = WebSocketClient()
    page = client.get("/42/", headers={"X-User": "anna"}).content.decode()
    address = re.search(r'WebSocket\("ws://testserver([^"]+)"\)', page)
    assert address is not None
    with client.websocket(address[1], headers={"X-User": "anna"}) as anna:
        ours = {"key": "user:anna", "info": {"name": "Anna"}}
        assert anna.receive_json() == {"here": [ours]}
        with client.websocket(address[1], headers={"X-User": "bert"}) as bert:
            theirs = {"key": "user:bert", "info": {"name": "Bert"}}
            assert bert.receive_json() == {"here": [ours, theirs]}
            joined = anna.receive_json()
            assert joined["group"] == "room-42"
            assert joined["joined"].items() >= {**theirs, "user": "bert"}.items()
        eventually(lambda: [len(m.connections) for m in group("room-42").members()] == [1, 0])


def test_a_member_cannot_speak_for_the_server(site: ModuleType) -> None:
    """What the page reads comes from the view and the server, whatever a member sends."""
    client = WebSocketClient()
    with client.websocket("/ws/42/", headers={"X-User": "anna"}) as anna:
        anna.receive_json()
        for forged in ({"left": {"key": "user:anna"}}, {"here": []}, {"group": "room-42"}):
            anna.send_json(forged)
            assert anna.receive_json() == {"text": json.dumps(forged)}


def test_in_a_view(site: ModuleType, override: Callable[..., None]) -> None:
    """The connection's user is known by what it says, and it is told who comes."""

    @accept_websocket
    def view(request: Any) -> None:
        exec(snippet_of("presence.md", "join("), {"request": request})
        request.websocket.send("joined")
        request.websocket.wait_closed()

    override(ROOT_URLCONF=(path("", view),))
    client = WebSocketClient()
    with client.websocket("/", headers={"X-User": "anna"}) as anna:
        assert anna.receive() == "joined"
        assert [member.info for member in group("room-42").members()] == [{"name": "Anna"}]
        with client.websocket("/", headers={"X-User": "bert"}):
            assert anna.receive_json()["joined"]["user"] == "bert"
