"""docs/settings.md: each block of Python; values are those that the checks accept."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from django.test import RequestFactory

from dwebsocket import conf
from support.pages import blocks, run

if TYPE_CHECKING:
    from collections.abc import Callable

    from dwebsocket.testing import WebSocketClient

    Serve = Callable[..., WebSocketClient]

PAGE = "docs/settings.md"
VALUES = [each.text for each in blocks(PAGE) if each.text.startswith("WEBSOCKET_")]


def test_options_of_a_view(serve: Serve) -> None:
    """The keywords are taken, and in effect."""
    view = run(PAGE, "max_message_size=64 * 1024")["chat"]
    with serve(view).websocket("/") as websocket:
        assert websocket.response.status_code == 101


def test_factory(serve: Serve, override: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """Only requests with a token are WebSockets, and what these receive is printed."""
    made = run(PAGE, "class Factory(")
    assert not made["Factory"](RequestFactory().get("/?token=1")).is_websocket()
    made["LoggingWebSocket"]().handle(1, b"hello")
    assert capsys.readouterr().out == "1 b'hello'\n"
    assert made["Factory"].websocket_class is made["LoggingWebSocket"]


@pytest.mark.parametrize("code", VALUES, ids=lambda code: code.partition(" ")[0])
def test_value(code: str) -> None:
    """Is one that the setting may have."""
    made: dict[str, Any] = {}
    exec(code, made)
    (name,) = (name for name in made if name.isupper())
    conf.read(name.removeprefix(conf.PREFIX), made[name])


def test_that_is_all() -> None:
    """Two blocks with code, and values."""
    assert len(VALUES) == len(blocks(PAGE)) - 2
