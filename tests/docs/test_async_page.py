"""docs/async.md: each block runs, and does what the page says of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.core.cache import cache

from dwebsocket.testing import Clock, WebSocketClient
from support.far_server import far_server
from support.pages import run

if TYPE_CHECKING:
    from collections.abc import Callable

    Serve = Callable[..., WebSocketClient]

PAGE = "docs/async.md"


def test_echo(serve: Serve) -> None:
    """Text and bytes come back as they are."""
    with serve(run(PAGE, "async def echo")["echo"]).websocket("/") as websocket:
        websocket.send("hello")
        websocket.send(b"\0")
        assert [websocket.receive(), websocket.receive()] == ["hello", b"\0"]


def test_orm(serve: Serve, anna: Any) -> None:
    """A transaction on a thread, and a count by the ORM's own async call."""
    from django.contrib.auth.models import Group

    Group.objects.get_or_create(name="night")
    with serve(run(PAGE, "night_shift")["night_shift"]).websocket("/") as websocket:
        websocket.send("anna")
        assert websocket.receive_json() == {"night": 1}
    assert [team.name for team in anna.groups.all()] == ["night"]


def test_every(serve: Serve) -> None:
    """Each second each symbol that the client has named."""
    with serve(run(PAGE, "send_prices")["prices"]).websocket("/") as websocket:
        websocket.send("AAA")
        websocket.ping()
        Clock().advance(2)
        assert websocket.receive_json() == {"symbol": "AAA", "price": 42}


def test_beside_the_view(serve: Serve) -> None:
    """Messages go to the other server and back, and its end is the client's."""

    def feed(connection: Any) -> None:
        for message in connection:
            connection.send(f"fed {message}")
            if message == "last":
                break

    with far_server(feed) as url:
        made = run(PAGE, "pass_back", ("wss://example.com", url))
        with serve(made["relay"]).websocket("/") as websocket:
            for message in ("first", "last"):
                websocket.send(message)
                assert websocket.receive() == f"fed {message}"
            assert (websocket.wait_closed(), websocket.close_reason) == (1000, "the feed has ended")


def test_the_end(serve: Serve) -> None:
    """`finally` runs when the client has gone."""
    with serve(run(PAGE, "desk")["desk"]).websocket("/") as websocket:
        websocket.send("hello")
        assert websocket.receive() == "hello"
        assert cache.get("desk")
        websocket.vanish()
    assert cache.get("desk") is None
