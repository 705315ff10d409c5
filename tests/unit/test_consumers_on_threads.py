"""
How consumers of Channels run behind `asgi_websocket`: on which threads, in which context.

The helpers of Channels, in processes of their own, show that other consumers run as ever.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import threading
import time
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import pytest
from asgiref.sync import async_to_sync, iscoroutinefunction, sync_to_async
from channels.db import database_sync_to_async
from channels.exceptions import StopConsumer
from channels.generic.websocket import AsyncWebsocketConsumer, WebsocketConsumer
from django.contrib.auth.models import User
from django.db.models import QuerySet
from django.test import override_settings
from django.urls import path
from django.utils import translation
from peer import all_given_back

from dwebsocket import asgi_websocket
from dwebsocket.request import database
from dwebsocket.runners import application_threads, async_view_threads
from dwebsocket.runners.asgi_apps.consumers import _run_all
from dwebsocket.testing import WebSocketClient
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SAID: ContextVar[str] = ContextVar("SAID", default="nothing")


def where() -> str:
    """Tell the thread."""
    return str(threading.get_ident())


class Where(QuerySet[Any]):
    """Counts its thread."""

    def count(self) -> int:
        return threading.get_ident()


class Threads(WebsocketConsumer):
    """Answers with its thread."""

    def receive(self, text_data: Any = None, bytes_data: Any = None) -> None:
        self.send(where())


class AsyncThreads(AsyncWebsocketConsumer):
    """Answers with the thread of sync code, called in the way that the message names."""

    async def receive(self, text_data: Any = None, bytes_data: Any = None) -> None:
        if text_data == "sync_to_async":
            answer = await sync_to_async(where)()
        elif text_data == "elsewhere":
            answer = await sync_to_async(where, thread_sensitive=False)()
        elif text_data == "database_sync_to_async":
            answer = await database_sync_to_async(where)()
        elif text_data == "within":
            answer = await sync_to_async(async_to_sync(sync_to_async(where)))()
        else:
            answer = str(await Where(User).acount())
        await self.send(answer)


# Where calls meet, if they are made at the same time.
MEETING = [threading.Barrier(1)]


def meet() -> str:
    """Wait for the others of :data:`MEETING`; tell whether they came."""
    try:
        MEETING[0].wait()
    except threading.BrokenBarrierError:
        return "alone"
    return "together"


class Meeting(WebsocketConsumer):
    """Tells whether others were called at the same time."""

    def receive(self, text_data: Any = None, bytes_data: Any = None) -> None:
        self.send(meet())


class AsyncMeeting(AsyncWebsocketConsumer):
    """The same by the ORM's way to a thread."""

    async def receive(self, text_data: Any = None, bytes_data: Any = None) -> None:
        await self.send(await database_sync_to_async(meet)())


class Asking(AsyncWebsocketConsumer):
    """Asks the ORM, if it is told to; answers with what the thread has left to do."""

    async def receive(self, text_data: Any = None, bytes_data: Any = None) -> None:
        if text_data == "count":
            await User.objects.acount()
        await self.send(str(has_databases()))


def has_databases() -> bool:
    """Tell whether the thread of the process has a connection of a database."""
    return application_threads._rest().submit(database.has_own).result()


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


# The messages for which :class:`Pouring` has sent all.
POURED: list[str] = []


class Pouring(WebsocketConsumer):
    """Sends so many large messages at once."""

    def receive(self, text_data: Any = None, bytes_data: Any = None) -> None:
        for _ in range(int(text_data)):
            self.send(bytes_data=bytes(100_000))
        POURED.append(text_data)


def through(application: Any) -> Any:
    """Have an application send by a function of a middleware, as that of sessions."""

    async def run(scope: Any, receive: Any, send: Any) -> None:
        async def send_on(event: Any) -> None:
            await send(event)

        await application(scope, receive, send_on)

    return run


urlpatterns: list[Any] = [
    path(consumer.__name__, asgi_websocket(consumer.as_asgi()))
    for consumer in (
        *(Threads, AsyncThreads, Meeting, AsyncMeeting, Asking),
        Contexts,
        Between,
        Stopped,
    )
]
urlpatterns += [
    path(f"own/{each.__name__}", asgi_websocket(each.as_asgi(), thread_per_connection=True))
    for each in (Meeting, AsyncMeeting)
]
urlpatterns += [
    path(
        f"{prefix}Pouring",
        asgi_websocket(
            application, thread_per_connection=own, send_buffer=200_000, send_timeout=60
        ),
    )
    for prefix, own, application in (
        ("", False, Pouring.as_asgi()),
        ("through/", False, through(Pouring.as_asgi())),
        ("own/", True, Pouring.as_asgi()),
    )
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


@pytest.fixture
def one_thread(client: Any) -> str:
    """Give the thread that asgiref has for a process."""
    return asyncio.run(sync_to_async(where)())


def test_sync_consumers_run_on_the_thread_of_the_process(client: Any, one_thread: str) -> None:
    """All of them, so objects of that thread can be used by each."""
    seen = {converse(client, Threads, "")[0] for _ in range(3)}
    assert seen == {one_thread}


@pytest.mark.parametrize("way", ["sync_to_async", "database_sync_to_async", "acount", "within"])
def test_sync_code_of_async_consumers_runs_on_it(client: Any, one_thread: str, way: str) -> None:
    """However it is called."""
    assert converse(client, AsyncThreads, way, way) == [one_thread] * 2


def test_calls_that_are_not_thread_sensitive_run_elsewhere(client: Any, one_thread: str) -> None:
    """As asgiref has it."""
    assert converse(client, AsyncThreads, "elsewhere") != [one_thread]


def meeting(client: Any, path: str, count: int, *, expected: int, within: float) -> list[str]:
    """Have so many consumers meet `expected` others at the same time; give what they say."""
    MEETING[0] = threading.Barrier(expected, timeout=within)
    with contextlib.ExitStack() as stack:
        opened = [stack.enter_context(client.websocket(f"/{path}")) for _ in range(count)]
        for ws in opened:
            ws.send("")
        return [ws.receive() for ws in opened]


# Seconds in which those that are called one after the other wait for the next one, in vain.
IN_VAIN_S = 0.3
LONG_S = 60.0
on_both = pytest.mark.parametrize("consumer", ["Meeting", "AsyncMeeting"])


@on_both
class TestHowMany:
    """The number of calls that are made at the same time."""

    def test_one(self, client: Any, consumer: str) -> None:
        """Two consumers never overlap."""
        assert meeting(client, consumer, 2, expected=2, within=IN_VAIN_S) == ["alone"] * 2

    def test_setting(self, client: Any, consumer: str, override: Any) -> None:
        """As many as it says, and the others wait for them."""
        override(WEBSOCKET_CHANNELS_THREADS=2)
        assert meeting(client, consumer, 4, expected=2, within=LONG_S) == ["together"] * 4
        assert meeting(client, consumer, 3, expected=3, within=IN_VAIN_S) == ["alone"] * 3

    def test_thread_per_connection(
        self, client: Any, consumer: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As many as there are threads of async views, and the others wait for them."""
        monkeypatch.setattr(async_view_threads, "_threads", async_view_threads.Threads(2))
        path = f"own/{consumer}"
        assert meeting(client, path, 4, expected=2, within=LONG_S) == ["together"] * 4
        assert meeting(client, path, 3, expected=3, within=IN_VAIN_S) == ["alone"] * 3


def test_thread_per_connection_is_true_or_false() -> None:
    """Anything else is an error where the view is made."""
    with pytest.raises(TypeError, match="thread_per_connection must be True or False, not 5"):
        asgi_websocket(Meeting.as_asgi(), thread_per_connection=5)  # type: ignore[arg-type]


def test_async_consumers_ask_no_thread_before_a_message(
    client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Channels would ask whether connections of databases are too old."""
    calls: list[Any] = []
    submit = application_threads.CallQueue.submit
    with client.websocket("/AsyncThreads") as ws:
        monkeypatch.setattr(
            application_threads.CallQueue,
            "submit",
            lambda line, function: calls.append(function) or submit(line, function),
        )
        for asks, expected in (("elsewhere", 0), ("sync_to_async", 1)):
            ws.send(asks)
            ws.receive()
            assert len(calls) == expected


def test_old_connections_are_closed_before_the_next_call(
    client: Any, one_thread: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once for each message, on the thread that has them."""
    closed: list[str] = []
    monkeypatch.setattr(database, "close_old_connections", lambda: closed.append(where()))
    with client.websocket("/AsyncThreads") as ws:
        for message in ("sync_to_async", "elsewhere", "within"):
            ws.send(message)
            ws.receive()
        assert closed == [one_thread] * 2


class TestDatabases:
    """Connections of the thread that all consumers share."""

    def test_idle_ones_are_given_back(
        self, client: Any, tables: None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """While the consumer goes on."""
        monkeypatch.setattr(database, "IDLE_AFTER_S", 0.05)
        with client.websocket("/Asking") as ws:
            ws.send("count")
            ws.receive()
            eventually(lambda: not has_databases())

    def test_the_last_consumer_gives_them_back(self, client: Any, tables: None) -> None:
        """At once, and one before it does not."""
        with client.websocket("/Asking") as ws:
            ws.send("count")
            ws.receive()
            with client.websocket("/Asking") as other:
                other.send("count")
                other.receive()
            eventually(has_databases)
        eventually(lambda: not has_databases(), within=database.IDLE_AFTER_S / 2)


@pytest.mark.parametrize(
    "prefix", ["", "through/", "own/"], ids=["one thread", "middleware", "a thread of its own"]
)
def test_a_client_that_takes_nothing_holds_up_no_other_consumer(
    client: Any, prefix: str, override: Callable[..., None]
) -> None:
    """Its messages wait, and so does its next handler; a thread of its own waits in `send`."""
    # On a busy machine the others take longer than the usual ten seconds.
    override(WEBSOCKET_SEND_TIMEOUT=None)
    POURED.clear()
    with client.websocket(f"/{prefix}Pouring") as slow:
        slow.send("100")
        slow.send("1")
        converse(client, Threads, *["and others"] * 20)
        assert POURED == ([] if prefix == "own/" else ["100"])
        assert [len(slow.receive()) for _ in range(101)] == [100_000] * 101
        assert POURED[:1] == ["100"]


def test_a_busy_consumer_lets_others_have_their_turn() -> None:
    """One that is sent many messages takes the thread for a millisecond at a time."""
    threads = application_threads.ApplicationThreads(1)
    busy, other = application_threads.CallQueue(threads), application_threads.CallQueue(threads)
    begun = threading.Event()
    made: list[int] = []

    def work(number: int) -> None:
        begun.wait()
        time.sleep(0.002)
        made.append(number)

    last = [busy.submit(functools.partial(work, number)) for number in range(50)][-1]
    between = other.submit(lambda: len(made))
    begun.set()
    assert between.result() < 50
    last.result()
    assert made == list(range(50))
    for line in (busy, other):
        line.end()


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
        assert view.__name__ == "Threads"
        assert view.require_websocket

    def test_handshake_without_an_event_loop(
        self, client: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """No loop is made for it: under WSGI that would take most of the time."""
        made: list[str] = []
        converse(client, Asking, "")
        monkeypatch.setattr(asyncio.events, "new_event_loop", lambda: made.append("one"))
        converse(client, Asking, "")
        assert not made


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt])
def test_what_asks_for_the_end_of_the_process_is_raised_in_its_view_alone(
    error: type[BaseException],
) -> None:
    """In a task of its own it would end the server's loop, and so all connections."""

    async def fail() -> None:
        raise error

    async def main() -> str:
        with pytest.raises(error):
            await _run_all(asyncio.sleep(60), fail())
        await asyncio.sleep(0)
        return "goes on"

    assert asyncio.run(main()) == "goes on"
