"""The heartbeat that pages can see, of which a client asks by `?beat=20` in its URL."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from django.urls import path
from test_servers_asgi import Wire, in_loop, until

from dwebsocket import accept_websocket, group
from dwebsocket.testing import AsyncWebSocketClient, Clock, WebSocketClient, websockets_of_a_test

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from django.http import HttpRequest
    from peer import LiveWebSocket


@accept_websocket(text_type=str, groups=["beats"])
def echo(request: HttpRequest) -> None:
    """Echo; what begins with a colon goes to the group."""
    for message in request.websocket:
        if message.startswith(":"):
            group("beats").send(message[1:])
        else:
            request.websocket.send(message)


urlpatterns = [path("echo/", echo)]


@pytest.fixture(autouse=True)
def _site(override: Callable[..., None]) -> Iterator[None]:
    override(ROOT_URLCONF=__name__)
    with websockets_of_a_test():
        yield


def test_an_empty_text_comes_whenever_nothing_was_sent_for_so_long() -> None:
    """Anything that is sent puts it off, and it repeats."""
    clock = Clock()
    with WebSocketClient().websocket("/echo/?beat=20") as ws:
        clock.advance(15)
        ws.send("hi")
        assert ws.receive() == "hi"
        clock.advance(15)
        ws.send("still no beat")
        assert ws.receive() == "still no beat"
        for _ in range(3):
            clock.advance(21)
            assert ws.receive() == ""
        ws.send("behind them")
        assert ws.receive() == "behind them"


@pytest.mark.parametrize(
    "query",
    [
        "",
        "?beat=9",
        "?beat=301",
        "?beat=0",
        "?beat=-20",
        "?beat=20s",
        "?beat=fast",
        "?heartbeat=20",
    ],
)
def test_nothing_comes_to_who_did_not_ask_for_it(query: str) -> None:
    """Nor where the number is the application's own."""
    clock = Clock()
    with WebSocketClient().websocket(f"/echo/{query}") as ws:
        clock.advance(200)
        ws.send("")
        assert ws.receive() == ""
        ws.send("first")
        assert ws.receive() == "first"


@pytest.mark.parametrize("query", ["?beat=10", "?beat=300", "?since=a%3Ab-1&beat=30&x=1"])
def test_who_asks_gets_it(query: str) -> None:
    """From 10 seconds to 300, wherever it stands in the URL."""
    clock = Clock()
    with WebSocketClient().websocket(f"/echo/{query}") as ws:
        clock.advance(301)
        assert ws.receive() == ""


@pytest.mark.parametrize("way", ["", ":"], ids=["the view", "a group"])
@pytest.mark.parametrize("message", ["", " ", "   ", "\n", " a", "\u00a0"])
def test_a_message_is_never_an_empty_text_then(way: str, message: str) -> None:
    """Those of blanks have one more, so that the page can tell which it was."""
    with WebSocketClient().websocket("/echo/?beat=20") as ws:
        ws.send(way + message)
        assert ws.receive() == (message if message.strip(" ") else f"{message} ")


def test_the_heartbeat_is_no_message_of_the_application(
    open_websocket: Callable[..., LiveWebSocket],
) -> None:
    """It is not counted, and bytes are left alone; begun again it stays as it was."""
    one = open_websocket()
    one.connection.begin_beat(0.01)
    one.connection.begin_beat(1e6)
    assert [one.client.receive() for _ in range(3)] == ["", "", ""]
    assert one.websocket.send_bytes(b"")
    while (message := one.client.receive()) == "":
        pass
    assert message == b""
    assert one.connection.messages() == (0, 1)


@in_loop
async def test_a_server_that_keeps_the_connection_beats_as_well() -> None:
    """By events, which are not counted; the application's own are told from them."""
    wire = Wire()
    wire.connection.begin_beat(0.01)
    await until(lambda: wire.said()[:2] == ["", ""])
    for message in ("", "  ", "a"):
        wire.websocket.send(message)
    wire.websocket.send_bytes(b"")
    await until(lambda: b"" in wire.said())
    assert [each for each in wire.said() if each != ""] == [" ", "   ", "a", b""]
    assert wire.connection.messages()[1] == 4
    wire.websocket.close()
    await until(lambda: wire.sent[-1]["type"] == "websocket.close")
    wire.disconnect()
    await wire.serving


@in_loop
async def test_async_clients_of_the_test_kit_have_it_too() -> None:
    """Over the events of ASGI."""
    clock = Clock()
    async with AsyncWebSocketClient().websocket("/echo/?beat=20") as ws:
        await clock.aadvance(21)
        assert await ws.receive() == ""
