"""
How consumers of Channels run behind `asgi_websocket`: on which threads, in which context.

The helpers of Channels, in processes of their own, show that other consumers run as ever.
"""

from __future__ import annotations

import asyncio
import threading
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import pytest
from asgiref.sync import async_to_sync, iscoroutinefunction
from channels.exceptions import StopConsumer
from channels.generic.websocket import AsyncWebsocketConsumer, WebsocketConsumer
from django.contrib.auth.models import User
from django.test import override_settings
from django.urls import path
from django.utils import translation
from peer import all_given_back

from dwebsocket import asgi_websocket
from dwebsocket.testing import WebSocketClient
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

SAID: ContextVar[str] = ContextVar("SAID", default="nothing")


class Names(WebsocketConsumer):
    """Answers with the name of its thread."""

    def receive(self, text_data: Any = None, bytes_data: Any = None) -> None:
        self.send(threading.current_thread().name)


class AsyncNames(AsyncWebsocketConsumer):
    """Answers with the names of the threads for sync code."""

    async def receive(self, text_data: Any = None, bytes_data: Any = None) -> None:
        if text_data == "count":
            await User.objects.acount()
        names = [thread.name for thread in threading.enumerate()]
        await self.send(" ".join(name for name in names if "application" in name))


class Contexts(WebsocketConsumer):
    """Remembers in context variables, and in Django's language."""

    def connect(self) -> None:
        self.accept()
        translation.activate("pt-br")

    def receive(self, text_data: Any = None, bytes_data: Any = None) -> None:
        before = SAID.get()
        SAID.set(text_data)
        self.send(f"{before} {translation.get_language()}")


class Between(WebsocketConsumer):
    """Calls async code, which calls it back, in the loop that its own messages come from."""

    def receive(self, text_data: Any = None, bytes_data: Any = None) -> None:
        async def loops() -> bool:
            await asyncio.sleep(0)
            return asyncio.get_running_loop() is loop

        async def loop_now() -> Any:
            return asyncio.get_running_loop()

        loop = async_to_sync(loop_now)()
        self.send(str(async_to_sync(loops)()))


class Stopped(WebsocketConsumer):
    """Ends by itself."""

    def receive(self, text_data: Any = None, bytes_data: Any = None) -> None:
        if text_data == "stop":
            raise StopConsumer
        raise RuntimeError(text_data)


urlpatterns = [
    path(consumer.__name__, asgi_websocket(consumer.as_asgi()))
    for consumer in (Names, AsyncNames, Contexts, Between, Stopped)
]


@pytest.fixture
def client() -> Iterator[Any]:
    """Give a client of these consumers."""
    with all_given_back(), override_settings(ROOT_URLCONF=__name__):
        yield WebSocketClient(headers={"origin": "http://testserver"})


def converse(client: Any, consumer: type, *messages: str) -> list[Any]:
    """Give the answers to these messages."""
    with client.websocket(f"/{consumer.__name__}") as ws:
        answers = []
        for message in messages:
            ws.send(message)
            answers.append(ws.receive())
        return answers


def test_handlers_run_on_threads_of_ours(client: Any) -> None:
    """Not on the one thread that asgiref has for a process."""
    (name,) = converse(client, Names, "")
    assert name.startswith("dwebsocket-application-")


def test_async_consumers_need_no_thread(client: Any, tables: None) -> None:
    """Channels would ask one before each message whether connections are too old."""
    eventually(lambda: "dwebsocket-application" not in str(threading.enumerate()))
    before, during = converse(client, AsyncNames, "", "count")
    assert before == ""
    assert during.startswith("dwebsocket-application-")


def test_context_variables(client: Any) -> None:
    """What a handler sets is there for the next one, and for no other consumer."""
    assert converse(client, Contexts, "a", "b") == ["nothing pt-br", "a pt-br"]
    assert converse(client, Contexts, "c") == ["nothing pt-br"]
    assert SAID.get() == "nothing"


def test_async_code_of_handlers(client: Any) -> None:
    """Runs in one loop, where a channel layer is, for example."""
    assert converse(client, Between, "") == ["True"]


@pytest.mark.parametrize(("message", "code"), [("stop", 1000), ("an error", 1011)])
def test_ends(client: Any, message: str, code: int) -> None:
    """`StopConsumer` is a normal end, any other exception is the view's."""
    error = None
    try:
        with client.websocket("/Stopped") as ws:
            ws.send(message)
            assert ws.wait_closed() == code
    except RuntimeError as raised:
        error = str(raised)
    assert error == (message if code == 1011 else None)


class TestViews:
    """Each view is async in an event loop, and sync elsewhere."""

    def test_forms(self) -> None:
        """Django asks before each request."""
        view = urlpatterns[0].callback

        async def ask() -> bool:
            return iscoroutinefunction(view)

        assert not iscoroutinefunction(view)
        assert asyncio.run(ask())
        assert view.__name__ == "Names"
        assert view.require_websocket

    def test_handshake_without_an_event_loop(
        self, client: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """No loop is made for it: under WSGI that would take most of the time."""
        made: list[str] = []
        converse(client, AsyncNames, "")
        monkeypatch.setattr(asyncio.events, "new_event_loop", lambda: made.append("one"))
        converse(client, AsyncNames, "")
        assert not made
