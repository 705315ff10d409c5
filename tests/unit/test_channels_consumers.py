"""Consumers of Channels as views, driven by our test client; the cases are those of Channels."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import pytest
from asgiref.sync import async_to_sync
from channels.consumer import AsyncConsumer
from channels.db import database_sync_to_async
from channels.generic.websocket import AsyncWebsocketConsumer, WebsocketConsumer
from channels.layers import get_channel_layer
from django.contrib.auth.models import User
from django.db import connections
from django.test import override_settings
from django.urls import path
from peer import all_given_back

from dwebsocket import ConnectionClosed, UsageError, asgi_websocket
from dwebsocket.runners.asgi_apps import events
from dwebsocket.testing import AsyncWebSocketClient, WebSocketClient
from project import consumers
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

BOTH = pytest.mark.parametrize("prefix", ["", "Async"], ids=["sync", "async"])
ORIGIN = {"origin": "http://testserver"}


@pytest.fixture
def client() -> Iterator[Any]:
    """Give a client of the site with all consumers; each test has a channel layer of its own."""
    with (
        all_given_back(),
        override_settings(
            ROOT_URLCONF="project.consumer_urls",
            MIDDLEWARE=[
                "django.contrib.sessions.middleware.SessionMiddleware",
                "django.contrib.auth.middleware.AuthenticationMiddleware",
            ],
            CHANNEL_LAYERS={"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}},
        ),
    ):
        # Now: consumers of the test before note their end before they give their connection back.
        consumers.ENDS.clear()
        consumers.CONN_LIST.clear()
        yield WebSocketClient(headers=ORIGIN)


@BOTH
class TestConsumers:
    """Both kinds: those on threads, and those in the event loop."""

    def test_messages(self, client: Any, prefix: str) -> None:
        """Text and bytes, there and back; `disconnect` has the code."""
        with client.websocket(f"/{prefix}Echo/") as ws:
            for message in ("hello", "grüße", "", b"w\0\0\0", "x" * 100_000):
                ws.send(message)
                assert ws.receive() == message
            ws.close(4001)
        assert consumers.ENDS == {"": [4001]}

    def test_vanished_client(self, client: Any, prefix: str) -> None:
        """`disconnect` is called, once."""
        with client.websocket(f"/{prefix}Echo/") as ws:
            ws.vanish()
        assert consumers.ENDS == {"": [1006]}

    def test_json(self, client: Any, prefix: str) -> None:
        """Objects, there and back."""
        with client.websocket(f"/{prefix}Json/") as ws:
            ws.send_json({"hello": "wörld"})
            assert ws.receive_json() == {"hello": "wörld"}

    def test_bytes_for_json(self, client: Any, prefix: str) -> None:
        """Channels raises an error, which is the view's."""
        with pytest.raises(ValueError, match="No text section"):  # noqa: PT012
            with client.websocket(f"/{prefix}Json/") as ws:
                ws.send(b"w\0\0\0")
                ws.wait_closed()

    def test_subprotocol_and_headers(self, client: Any, prefix: str) -> None:
        """Of the consumer's `accept`."""
        with client.websocket(f"/{prefix}Choosing/", subprotocols=["one", "two"]) as ws:
            assert ws.subprotocol == "two"
            assert ws.headers["x-room"] == "7"

    def test_close(self, client: Any, prefix: str) -> None:
        """Code and reason reach the client, behind what was sent; `disconnect` is called."""
        with client.websocket(f"/{prefix}Closing/") as ws:
            assert ws.receive() == "last words"
            with pytest.raises(ConnectionClosed, match="4007: the reason"):
                ws.receive()
        assert consumers.ENDS == {"": [4007]}

    def test_denied(self, client: Any, prefix: str) -> None:
        """403, and then `disconnect`."""
        with client.websocket(f"/{prefix}Denying/") as ws:
            assert ws.response.status_code == 403
        eventually(lambda: consumers.ENDS == {"": [1006]})

    def test_accepted_by_an_exception_and_an_error(self, client: Any, prefix: str) -> None:
        """The client gets 1011; the test gets the consumer's error."""
        with pytest.raises(LookupError, match="boom"):  # noqa: PT012
            with client.websocket(f"/{prefix}Accepting/") as ws:
                ws.send("boom")
                assert ws.wait_closed() == 1011

    def test_groups(self, client: Any, prefix: str) -> None:
        """Consumers of a group get its messages, and leave it at their end."""
        with client.websocket(f"/{prefix}Grouped/") as ada:
            with client.websocket(f"/{prefix}Grouped/") as grace:
                grace.send("hello")
                assert ada.receive() == grace.receive() == "hello"
            ada.send("alone")
            assert ada.receive() == "alone"
        assert get_channel_layer().groups == {}  # type: ignore[union-attr]

    def test_message_of_a_group_that_is_as_one_of_the_client(
        self, client: Any, prefix: str
    ) -> None:
        """One of the type `websocket.receive` reaches `receive`."""
        message = {"type": "websocket.receive", "text": "hello"}

        async def main() -> None:
            path = f"/{prefix}Grouped/"
            async with AsyncWebSocketClient(headers=ORIGIN).websocket(path) as ws:
                await get_channel_layer().group_send("all", message)  # type: ignore[union-attr]
                assert await ws.receive() == "hello"

        asyncio.run(main())

    def test_scope(self, client: Any, anna: User, prefix: str) -> None:
        """User, route, query, and the database."""
        client.force_login(anna)
        with client.websocket(f"/{prefix}Facts/?a=1") as ws:
            facts = ws.receive_json()
        users = [1, 1] if prefix else 1
        assert (facts["user"], facts["users"]) == ("anna", users)
        if not prefix:
            assert facts["path"] == "/Facts/"
            assert (facts["query"], facts["route"]) == ("a=1", {})
            assert (facts["type"], facts["host"]) == ("websocket", "testserver")


@pytest.mark.parametrize("path", ["/ws/room/lobby/", "/ws/async-room/lobby/"])
@pytest.mark.parametrize("prefix", ["", "/below/red"])
def test_rooms_of_a_router(client: Any, tables: None, prefix: str, path: str) -> None:
    """The chat of Channels' documentation, behind its whole stack of middleware."""
    path = prefix + path
    with client.websocket(path) as ada, client.websocket(path) as grace:
        with client.websocket(path.replace("lobby", "other")) as other:
            ada.send_json({"message": "hello"})
            assert ada.receive_json() == grace.receive_json() == {"message": "hello"}
            other.send_json({"message": "here"})
            assert other.receive_json() == {"message": "here"}
        grace.send_json({"message": "bye"})
        assert ada.receive_json() == {"message": "bye"}
    assert get_channel_layer().groups == {}  # type: ignore[union-attr]


@pytest.mark.parametrize("path", ["/ws/facts/5/", "/ws/async-facts/"])
def test_users_behind_channels_middleware(client: Any, anna: User, path: str) -> None:
    """It finds the session and the user that Django's middleware has put there."""
    client.force_login(anna)
    with client.websocket(path) as ws:
        assert ws.receive_json()["user"] == "anna"


def test_origin_of_channels(client: Any, tables: None) -> None:
    """Its validator refuses a request without one, which ours lets through."""
    with WebSocketClient().websocket("/ws/room/lobby/") as ws:
        assert ws.response.status_code == 403


def _endless(name: str, seen: list[Any]) -> Any:
    """A consumer that does not stop at its `websocket_disconnect`, but has a message then."""

    class Endless(WebsocketConsumer):
        def websocket_disconnect(self, message: Any) -> None:
            seen.append(message["code"])
            work = {"type": "work"}
            async_to_sync(self.channel_layer.send)(self.channel_name, work)

        def work(self, event: Any) -> None:
            time.sleep(0.3)
            seen.append("done")

    class AsyncEndless(AsyncConsumer):
        async def websocket_connect(self, message: Any) -> None:
            await self.send({"type": "websocket.accept"})

        async def websocket_disconnect(self, message: Any) -> None:
            seen.append(message["code"])
            await self.channel_layer.send(self.channel_name, {"type": "work"})

        async def work(self, event: Any) -> None:
            await asyncio.sleep(0.3)
            seen.append("done")

    return {"": Endless, "Async": AsyncEndless}[name]


@BOTH
def test_consumer_that_does_not_stop(
    client: Any, monkeypatch: pytest.MonkeyPatch, prefix: str
) -> None:
    """`websocket_disconnect` is called once, and the consumer ends after what it does."""
    monkeypatch.setattr(events, "_LAST_S", 0.1)
    seen: list[Any] = []
    view = asgi_websocket(_endless(prefix, seen).as_asgi())
    with override_settings(ROOT_URLCONF=(path("endless/", view),)):
        with client.websocket("/endless/") as ws:
            ws.close(4001)
    assert seen == [4001, "done"]


def test_list_of_connections(client: Any) -> None:
    """Each gets what anybody sends; those that have gone leave the list."""
    with client.websocket("/Listed/") as ada, client.websocket("/Listed/") as grace:
        eventually(lambda: len(consumers.CONN_LIST) == 2)
        grace.send("hello")
        assert ada.receive() == grace.receive() == "2: hello"
        grace.send("close")
        assert grace.wait_closed() == 1000
        eventually(lambda: len(consumers.CONN_LIST) == 1)
        ada.send("still there?")
        assert ada.receive() == "1: still there?"
    assert consumers.CONN_LIST == []


SHORT_AND_LONG = pytest.mark.parametrize("prefix", ["/", "/ws/"], ids=["view", "middleware"])


@SHORT_AND_LONG
def test_threads_of_a_consumer(client: Any, tables: None, prefix: str) -> None:
    """They may send, as in tutorials that push."""
    with client.websocket(f"{prefix}pushing/") as ws:
        ws.send("push")
        assert [ws.receive() for _ in range(3)] == ["push 0", "push 1", "push 2"]


@SHORT_AND_LONG
def test_client_that_takes_nothing(client: Any, tables: None, prefix: str) -> None:
    """A sync consumer is told by `disconnect`, and sends nothing any more."""
    with client.websocket(f"{prefix}pouring/") as ws:
        ws.send("100")
        eventually(lambda: consumers.ENDS.get("") == [1013], 30)


@pytest.mark.parametrize("event", [{}, {"text": b"bytes"}], ids=["nothing", "wrong type"])
def test_wrong_message_of_a_sync_consumer(client: Any, event: dict[str, Any]) -> None:
    """Is an error where it is sent."""

    class Wrong(WebsocketConsumer):
        def receive(self, text_data: Any = None, bytes_data: Any = None) -> None:
            self.base_send({"type": "websocket.send", **event})

    view = asgi_websocket(Wrong.as_asgi())
    with override_settings(ROOT_URLCONF=(path("wrong/", view),)):
        with pytest.raises((UsageError, TypeError), match=r"websocket\.send"):  # noqa: PT012
            with client.websocket("/wrong/") as ws:
                ws.send("now")
                ws.wait_closed()


def _asking(name: str) -> type[Any]:
    """A consumer that asks the database for each message."""

    class Asks(WebsocketConsumer):
        def receive(self, text_data: Any = None, bytes_data: Any = None) -> None:
            self.send(str(User.objects.count()))

    class AsyncAsks(AsyncWebsocketConsumer):
        async def receive(self, text_data: Any = None, bytes_data: Any = None) -> None:
            await self.send(str(await User.objects.acount()))

    class AsksAsUsual(AsyncWebsocketConsumer):
        async def receive(self, text_data: Any = None, bytes_data: Any = None) -> None:
            await self.send(str(await database_sync_to_async(User.objects.count)()))

    return {"sync": Asks, "async": AsyncAsks, "database_sync_to_async": AsksAsUsual}[name]


@pytest.mark.parametrize("name", ["sync", "async", "database_sync_to_async"])
def test_connection_to_the_database_is_kept_for_the_next_message(
    client: Any, tables: None, opened: list[Any], name: str
) -> None:
    """However old it is; Channels would open one for each. It is closed at the end."""
    view = asgi_websocket(_asking(name).as_asgi())
    with override_settings(ROOT_URLCONF=(path("asks/", view),)), client.websocket("/asks/") as ws:
        for _ in range(5):
            ws.send("how many?")
            assert ws.receive().isdigit()
    # None if the thread has yet to close that of the test before.
    assert len(opened) <= 1
    eventually(lambda: all(each.connection is None for each in opened))


def test_arguments_of_a_consumer(client: Any) -> None:
    """Those of `as_asgi()` are passed on; its class is that of the project, by name."""
    seen: list[Any] = []

    class Named(WebsocketConsumer):
        def __init__(self, name: str) -> None:
            super().__init__()
            seen.extend([name, type(self).__qualname__, isinstance(self, Named)])

    view = asgi_websocket(Named.as_asgi(name="lobby"))
    with override_settings(ROOT_URLCONF=(path("named/", view),)), client.websocket("/named/"):
        pass
    assert seen == ["lobby", Named.__qualname__, True]


@pytest.mark.parametrize("message", ["hello", "", b"w\0\0\0", b""])
def test_message_is_text_or_bytes(client: Any, message: str | bytes) -> None:
    """Never both: the other one is None."""
    with client.websocket("/Kinds/") as ws:
        ws.send(message)
        expected = (message, None) if isinstance(message, str) else (None, message)
        assert ws.receive() == repr(expected)


@pytest.mark.parametrize(
    "backend", ["channels.layers.InMemoryChannelLayer", "dwebsocket.channels.ChannelLayer"]
)
def test_layer_of_another_alias(client: Any, backend: str) -> None:
    """`channel_layer_alias` names the consumer's layer; there need not be a default one."""
    with override_settings(CHANNEL_LAYERS={"other": {"BACKEND": backend}}):
        with client.websocket("/Elsewhere/") as ws:
            ws.send("hello")
            assert ws.receive() == "hello"
        # Else other processes of this run wait for its answers.
        asyncio.run(get_channel_layer("other").close())  # type: ignore[union-attr]


@pytest.mark.parametrize("kind", ["_hidden", ".hidden"])
def test_private_handlers(client: Any, kind: str) -> None:
    """Channels refuses messages that name them."""
    with pytest.raises(ValueError, match="Malformed type in message"):  # noqa: PT012
        with client.websocket("/Private/") as ws:
            ws.send(kind)
            ws.wait_closed()


def test_decides_later(client: Any) -> None:
    """Channels waits for the client's next event meanwhile."""
    with client.websocket("/Late/") as ws:
        assert ws.receive() == "welcome"


def test_without_channels(client: Any) -> None:
    """An application is a function of scope, receive and send."""
    with client.websocket("/application/") as ws:
        ws.send("hello")
        assert ws.receive() == "hello"
    assert consumers.ENDS == {"": [1000]}


def test_denial_response(client: Any) -> None:
    """The test sees it as it sees any refusal."""
    with client.websocket("/unpaid/") as ws:
        assert (ws.response.status_code, ws.response.content) == (402, b"no money")


def test_options(client: Any) -> None:
    """Those of the decorator."""
    with client.websocket("/small/") as ws:
        ws.send("x" * 11)
        assert ws.wait_closed() == 1009


@pytest.mark.parametrize("path", ["/Echo/", "/AsyncEcho/", "/application/"])
def test_in_async_tests(client: Any, path: str) -> None:
    """The consumer is a task of the test's own event loop."""

    async def main() -> None:
        async with AsyncWebSocketClient(headers=ORIGIN).websocket(path) as ws:
            await ws.send("hello")
            assert await ws.receive() == "hello"

    asyncio.run(main())
    eventually(lambda: consumers.ENDS == {"": [1000]})


@BOTH
def test_groups_in_async_tests(client: Any, prefix: str) -> None:
    """The test and its consumers share the loop, so the layer in memory reaches them."""

    async def main() -> None:
        async with AsyncWebSocketClient(headers=ORIGIN).websocket(f"/{prefix}Grouped/") as ws:
            notice = {"type": "notice", "text": "by the test"}
            await get_channel_layer().group_send("all", notice)  # type: ignore[union-attr]
            assert await ws.receive() == "by the test"

    asyncio.run(main())


def test_atomic_requests(client: Any, tables: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Django forbids them for async views; no WebSocket is in the request's transaction anyway."""
    monkeypatch.setitem(connections["default"].settings_dict, "ATOMIC_REQUESTS", True)
    with client.websocket("/AsyncEcho/") as ws:
        ws.send("hello")
        assert ws.receive() == "hello"
