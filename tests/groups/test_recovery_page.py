"""What docs/recovery.md shows is executed."""

from __future__ import annotations

import json
import re
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest
from django.template.loader import render_to_string
from django.urls import path
from pages import files_of, snippet_of, templates

from dwebsocket import accept_websocket, group
from dwebsocket.testing import WebSocketClient

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

BLOCKS = files_of("recovery.md")


@pytest.fixture
def client(override: Callable[..., None], tmp_path: Path) -> WebSocketClient:
    """Give a client of the page's site."""
    settings: dict[str, dict[str, dict[str, object]]] = {}
    exec(BLOCKS["settings.py"], settings)
    views = ModuleType("views")
    exec(BLOCKS["chat/views.py"], vars(views))
    (tmp_path / "chat.html").write_text(BLOCKS["chat/templates/chat.html"])
    backend = {"BACKEND": "dwebsocket.groups.process"}
    override(
        WEBSOCKET_GROUPS={"default": {**settings["WEBSOCKET_GROUPS"]["default"], **backend}},
        MIDDLEWARE=[],
        ROOT_URLCONF=(
            path("ws/<room>/", views.chat, name="chat"),
            path("<room>/", views.page),
        ),
        TEMPLATES=templates(tmp_path),
    )
    return WebSocketClient()


def test_page_and_stream_have_no_gap(
    client: WebSocketClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is said while the page is made, or behind that, comes when its script connects."""
    group("room-42").send("one")

    def slow(*arguments: Any, **options: Any) -> str:
        group("room-42").send("between")
        return str(render_to_string(*arguments, **options))

    monkeypatch.setattr("django.shortcuts.loader.render_to_string", slow)
    page = client.get("/42/").content.decode()
    assert "<li>one</li>" in page
    assert "between" not in page
    position = re.search(r'position = "([^"]+)"', page)
    address = re.search(r"WebSocket\(`ws://testserver([^?]+)\?since=", page)
    assert position is not None
    assert address is not None
    group("room-42").send("two")
    with client.websocket(f"{address[1]}?since=room-42:{position[1]}") as websocket:
        assert websocket.receive_json()["data"] == "between"
        assert websocket.receive_json()["data"] == "two"
        assert websocket.receive_json()["recovered"] is True
        websocket.send("three")
        assert json.loads(websocket.receive())["data"] == "three"


@pytest.mark.parametrize(("known", "gets"), [(True, "later"), (False, '{"reload": true}')])
def test_in_a_view(override: Callable[..., None], known: bool, gets: str) -> None:
    """The view sends what was missed, or says that it cannot."""
    settings: dict[str, dict[str, dict[str, object]]] = {}
    exec(BLOCKS["settings.py"], settings)
    backend = {"BACKEND": "dwebsocket.groups.process"}
    own = {**settings["WEBSOCKET_GROUPS"]["default"], **backend}

    @accept_websocket
    def view(request: Any) -> None:
        exec(snippet_of("recovery.md", "recovery ="), {"request": request, "position": position})

    override(WEBSOCKET_GROUPS={"default": own}, MIDDLEWARE=[], ROOT_URLCONF=(path("", view),))
    position = group("room-42").position() if known else f"{'0' * 16}-1"
    group("room-42").send("later")
    with WebSocketClient().websocket("/") as websocket:
        assert websocket.receive() == gets
