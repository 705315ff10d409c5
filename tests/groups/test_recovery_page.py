"""What docs/recovery.md shows is executed."""

from __future__ import annotations

import json
import re
from types import ModuleType
from typing import TYPE_CHECKING

import pytest
from django.urls import path
from pages import files_of, templates

from dwebsocket import group
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


def test_page_and_stream_have_no_gap(client: WebSocketClient) -> None:
    """What is said after the page was made comes when its script connects."""
    group("room-42").send("one")
    page = client.get("/42/").content.decode()
    assert "<li>one</li>" in page
    position = re.search(r'position = "([^"]+)"', page)
    address = re.search(r"WebSocket\(`ws://testserver([^?]+)\?since=", page)
    assert position is not None
    assert address is not None
    group("room-42").send("two")
    with client.websocket(f"{address[1]}?since=room-42:{position[1]}") as websocket:
        assert websocket.receive_json()["data"] == "two"
        assert websocket.receive_json()["recovered"] is True
        websocket.send("three")
        assert json.loads(websocket.receive())["data"] == "three"
