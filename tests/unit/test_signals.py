"""`dwebsocket.signals`: which are sent, when, and with what."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
import tracemalloc
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import django
import pytest
from django.core.exceptions import PermissionDenied, SuspiciousOperation
from django.db import DatabaseError, connections
from django.http import Http404, HttpResponse
from django.test import override_settings
from django.urls import path
from visit import handshake

from dwebsocket import (
    WebSocket,
    WebSocketHandler,
    accept_websocket,
    group,
    require_websocket,
    signals,
)
from dwebsocket.api import close_callbacks
from dwebsocket.api.announcing import AnnouncingConnection
from dwebsocket.compat import unpatched
from dwebsocket.groups import membership_signals
from dwebsocket.testing import WebSocketClient
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from peer import LiveWebSocket
    from visit import Serve

    Connect = Callable[..., None]

Told = list[tuple[str, dict[str, Any]]]
NAMES = signals.__all__
has_async_receivers = pytest.mark.skipif(
    django.VERSION < (5, 0), reason="receivers may be async since Django 5.0"
)


@pytest.fixture(autouse=True)
def _own_groups() -> Iterator[None]:
    """Groups of this process alone."""
    with override_settings(WEBSOCKET_GROUPS={"default": {"BACKEND": "dwebsocket.groups.process"}}):
        yield
    # A signal that is sent late would reach the receivers of the next test.
    eventually(lambda: not close_callbacks.is_pending() and not signals._calls.is_working)


@pytest.fixture
def told() -> Iterator[Told]:
    """Everything that the signals say, in order: the name, and the keyword arguments."""
    found: Told = []
    with ExitStack() as undo:
        for name in NAMES:

            def receive(sender: object, name: str = name, **facts: Any) -> None:
                assert sender is WebSocket
                del facts["signal"]
                found.append((name, facts))

            signal = getattr(signals, name)
            signal.connect(receive, weak=False)
            undo.callback(signal.disconnect, receive)
        yield found


@pytest.fixture
def connected() -> Iterator[Callable[..., None]]:
    """Connect a receiver for the rest of the test: `connected("websocket_opened", receiver)`."""
    with ExitStack() as undo:

        def connect(name: str, receiver: Callable[..., Any]) -> None:
            signal = getattr(signals, name)
            signal.connect(receiver, weak=False)
            undo.callback(signal.disconnect, receiver)

        yield connect


@require_websocket(text_type=str)
def echo(request: Any) -> None:
    for message in request.websocket:
        request.websocket.send(message)


@require_websocket
def echo_as_ever(request: Any) -> None:
    for message in request.websocket:
        request.websocket.send(message)


@require_websocket
async def async_echo(request: Any) -> None:
    async for message in request.websocket:
        await request.websocket.asend(message)


@require_websocket
async def patient_echo(request: Any) -> None:
    while True:
        await request.websocket.asend(await request.websocket.areceive(timeout=60))


@accept_websocket(accept=False)
def decides(request: Any) -> None:
    request.websocket.accept()
    for message in request.websocket.messages():
        request.websocket.send(message)


@accept_websocket(accept=False)
async def async_decides(request: Any) -> None:
    await request.websocket.aaccept()
    async for message in request.websocket:
        await request.websocket.asend(message)


def names(told: Told) -> list[str]:
    """The names alone."""
    return [name for name, _ in told]


@pytest.mark.parametrize(
    "view", [echo, echo_as_ever, async_echo, patient_echo, decides, async_decides]
)
class TestLife:
    """Of a connection."""

    def test_opened_message_closed(
        self, view: Callable[..., Any], visit: Serve, told: Told
    ) -> None:
        """In this order, each with the connection and its request."""
        made = visit(view)
        made.serve()
        made.client.send("né")
        assert made.client.receive() == "né"
        made.client.close(4001, "bye")
        eventually(lambda: "websocket_closed" in names(told))
        assert names(told) == ["websocket_opened", "websocket_message", "websocket_closed"]
        websocket = told[0][1]["websocket"]
        assert isinstance(websocket, WebSocket)
        for _, facts in told:
            assert facts["websocket"] is websocket
            assert facts["request"].path == "/"
        assert told[0][1].keys() == {"websocket", "request"}
        assert told[1][1]["message"] == "né"
        closed = told[2][1]
        assert 0 <= closed.pop("seconds") < 600
        del closed["websocket"], closed["request"]
        assert (closed.pop("code"), closed.pop("reason"), closed.pop("by")) == (4001, "bye", "peer")
        assert closed == {"messages_in": 1, "messages_out": 1}

    def test_receivers_that_raise_harm_nothing(
        self,
        view: Callable[..., Any],
        visit: Serve,
        told: Told,
        connected: Callable[..., None],
        request_log: Callable[..., Any],
    ) -> None:
        """They are logged, and the other receivers are called."""

        def fail(**_: Any) -> None:
            raise RuntimeError("a broken receiver")

        for name in NAMES:
            connected(name, fail)
        made = visit(view)
        made.serve()
        made.client.send(b"\xff")
        assert made.client.receive() == b"\xff"
        made.client.close()
        eventually(lambda: "websocket_closed" in names(told))
        assert names(told) == ["websocket_opened", "websocket_message", "websocket_closed"]
        assert told[1][1]["message"] == b"\xff"
        eventually(lambda: len(request_log("django.dispatch")) == 3)
        assert made.client.closing()[0] in (1000, None)

    def test_without_receivers_nothing_is_done(
        self, view: Callable[..., Any], visit: Serve
    ) -> None:
        """The connection is the engine's own, and no callback waits for the end."""
        seen: list[Any] = []

        @accept_websocket
        def looks(request: Any) -> None:
            ws = request.websocket
            seen.extend([type(ws._connection).__module__, ws._close_callbacks, ws._groups_noted])

        made = visit(looks)
        made.serve()
        made.client.closing()
        assert seen == ["dwebsocket._core", None, None]


class TestMessage:
    """`websocket_message`."""

    @pytest.mark.parametrize("view", [echo, async_echo])
    def test_comes_before_the_view_gets_it(
        self, view: Callable[..., Any], visit: Serve, connected: Callable[..., None]
    ) -> None:
        """The answer follows."""
        order: list[str] = []

        def receive(websocket: WebSocket, message: str, **_: Any) -> None:
            order.append(message)
            websocket.send_text("seen")

        connected("websocket_message", receive)
        made = visit(view)
        made.serve()
        made.client.send("hello")
        assert [made.client.receive(), made.client.receive()] == ["seen", "hello"]
        assert order == ["hello"]
        made.client.close()

    def test_has_exact_types_in_the_compatible_mode(self, visit: Serve, told: Told) -> None:
        """The view gets bytes for text all the same."""
        seen: list[Any] = []

        @require_websocket
        def view(request: Any) -> None:
            ws = request.websocket
            seen.append(ws.wait())
            seen.append(ws.wait(60))
            while not ws.has_messages():
                pass
            seen.append(ws.read())
            seen.append(ws.receive())
            seen.append(ws.receive(60))

        made = visit(view)
        made.serve()
        for message in ("a", b"b", "c", "d", b"\xff"):
            made.client.send(message)
        made.client.closing()
        assert seen == [b"a", b"b", b"c", "d", b"\xff"]
        messages = [facts["message"] for name, facts in told if name == "websocket_message"]
        assert messages == ["a", b"b", "c", "d", b"\xff"]

    @has_async_receivers
    @pytest.mark.parametrize("call", ["areceive", "areceive(60)", "async for", "wait(0)"])
    def test_a_message_whose_receiver_was_cancelled_comes_again(
        self, call: str, open_websocket: Callable[..., LiveWebSocket], connected: Connect
    ) -> None:
        """To the next call, and without another signal."""
        told: list[str] = []
        begun = asyncio.Event()

        async def receive(message: str, **_: Any) -> None:
            told.append(message)
            begun.set()
            await asyncio.sleep(0 if told[1:] else 60)

        async def main(websocket: WebSocket) -> None:
            first = asyncio.create_task(websocket.areceive(60 if "60" in call else None))
            await begun.wait()
            first.cancel()
            await asyncio.wait([first])
            # And the end.
            assert websocket.count_messages() == 3
            if call == "async for":
                found = [message async for message in websocket]
            elif call == "wait(0)":
                found = [websocket.wait(0), await websocket.areceive()]
            else:
                found = [await websocket.areceive(60 if "60" in call else None) for _ in "ab"]
            assert (first.cancelled(), found, told) == (True, ["a", "b"], ["a", "b"])

        connected("websocket_message", receive)
        live = open_websocket(text_type=str)
        live.client.send("a")
        live.client.send("b")
        live.client.close()
        eventually(lambda: live.connection.waiting() == (2, True))
        asyncio.run(main(live.websocket))

    def test_counts_both_directions(self, visit: Serve, told: Told) -> None:
        """Messages of helpers, of bursts and of groups."""

        @require_websocket
        def view(request: Any) -> None:
            request.websocket.join("counted")
            for message in request.websocket:
                if message:
                    request.websocket.send(message)

        made = visit(view)
        made.serve()
        for number in range(20):
            made.client.send(str(number))
        for number in range(20):
            assert made.client.receive() == str(number)
        group("counted").send("x")
        assert made.client.receive() == "x"
        made.client.close()
        eventually(lambda: "websocket_closed" in names(told))
        closed = dict(told)["websocket_closed"]
        assert (closed["messages_in"], closed["messages_out"]) == (20, 21)


class TestAsyncReceivers:
    """Coroutine functions as receivers."""

    @has_async_receivers
    @pytest.mark.parametrize("view", [echo, async_echo, decides])
    def test_are_awaited(
        self, view: Callable[..., Any], visit: Serve, connected: Callable[..., None]
    ) -> None:
        """Behind sync and async views."""
        seen: list[str] = []

        def note(name: str) -> None:
            async def receive(**_: Any) -> None:
                await asyncio.sleep(0)
                seen.append(name)

            connected(name, receive)

        for name in ("websocket_opened", "websocket_message", "websocket_closed"):
            note(name)
        made = visit(view)
        made.serve()
        made.client.send("hello")
        assert made.client.receive() == "hello"
        made.client.close()
        eventually(lambda: len(seen) == 3)
        assert seen == ["websocket_opened", "websocket_message", "websocket_closed"]

    def test_sync_ones_do_not_block_the_loop(
        self, visit: Serve, connected: Callable[..., None]
    ) -> None:
        """They run on another thread than the views' loop."""
        threads: list[str] = []
        for name in ("websocket_opened", "websocket_message"):
            connected(name, lambda **_: threads.append(threading.current_thread().name))
        made = visit(async_echo)
        made.serve()
        made.client.send("hello")
        assert made.client.receive() == "hello"
        assert len(threads) == 2
        assert "dwebsocket-loop" not in threads
        made.client.close()

    def test_a_sync_call_in_a_loop_does_not_wait_for_them(
        self, told: Told, connected: Callable[..., None]
    ) -> None:
        """The receivers are called soon after, in order."""

        may_go_on = threading.Event()
        connected("websocket_refused", lambda **_: may_go_on.wait(60))

        async def main() -> None:
            for number in range(3):
                signals.send(signals.websocket_refused, None, None, status=403 + number, why="no")
            may_go_on.set()

        asyncio.run(main())
        eventually(lambda: len(told) == 3)
        assert [facts["status"] for _, facts in told] == [403, 404, 405]


@accept_websocket(accept=False)
def rejects(request: Any) -> None:
    request.websocket.reject(404)


@accept_websocket(accept=False)
def answers(request: Any) -> HttpResponse:
    return HttpResponse("pay", status=402)


@accept_websocket(accept=False)
def forbids(request: Any) -> None:
    raise PermissionDenied


@accept_websocket(accept=False)
async def misses(request: Any) -> None:
    raise Http404("nothing here")


@accept_websocket(accept=False)
def suspects(request: Any) -> None:
    raise SuspiciousOperation("odd")


@accept_websocket(accept=False)
def fails(request: Any) -> None:
    raise ZeroDivisionError


class TestRefused:
    """`websocket_refused`."""

    @pytest.mark.parametrize(
        ("view", "changes", "status", "why"),
        [
            (echo, {"HTTP_ORIGIN": "https://evil.example"}, 403, "evil.example"),
            (echo, {"HTTP_SEC_WEBSOCKET_VERSION": "8"}, 426, "must be 13"),
            (echo, {"HTTP_UPGRADE": None, "HTTP_SEC_WEBSOCKET_KEY": None}, 400, ""),
            (rejects, {}, 404, "rejected"),
            (answers, {}, 402, "response"),
            (forbids, {}, 403, "PermissionDenied"),
            (misses, {}, 404, "nothing here"),
            (suspects, {}, 400, "odd"),
            (fails, {}, 500, "ZeroDivisionError"),
        ],
    )
    def test_has_status_and_reason(
        self,
        view: Callable[..., Any],
        changes: dict[str, str | None],
        status: int,
        why: str,
        visit: Serve,
        told: Told,
    ) -> None:
        """Whichever step refuses, and once."""
        made = visit(view, environ=handshake(**changes))
        assert made.response.status_code == status
        eventually(lambda: told)
        assert names(told) == ["websocket_refused"]
        facts = told[0][1]
        assert facts.keys() == {"websocket", "request", "status", "why"}
        assert facts["status"] == status
        assert why in facts["why"]
        assert facts["request"].path == "/"


class TestGroups:
    """`group_joined`, `group_left` and `group_interrupted`."""

    def test_each_join_and_leave_once(self, visit: Serve, told: Told) -> None:
        """Repetitions are not told."""

        @require_websocket
        def view(request: Any) -> None:
            ws = request.websocket
            ws.join("a", "b")
            ws.join("a")
            ws.leave("a", "c")
            ws.leave("a")
            ws.wait()

        made = visit(view)
        made.serve()
        made.client.send("go")
        made.client.closing()
        eventually(lambda: names(told).count("group_left") == 2)
        about = [
            (name, facts["group"])
            for name, facts in told
            if name.startswith("group") and facts["request"].path == "/"
        ]
        assert about == [
            ("group_joined", group("a")),
            ("group_joined", group("b")),
            ("group_left", group("a")),
            ("group_left", group("b")),
        ]

    @pytest.mark.parametrize("joins", ["decorator", "sync call", "async call"])
    def test_leaving_is_told_behind_joining(
        self, joins: str, visit: Serve, connected: Callable[..., None]
    ) -> None:
        """Also when the connection ends while a receiver is still told of the joining."""
        order: list[str] = []

        def takes_long(**_: Any) -> None:
            end = time.monotonic() + 0.5
            while not order and time.monotonic() < end:
                time.sleep(0.01)

        connected("group_joined", takes_long)
        connected("group_joined", lambda **_: order.append("joined"))
        connected("group_left", lambda **_: order.append("left"))

        @require_websocket(groups=["a"] if joins == "decorator" else [])
        async def view(request: Any) -> None:
            if joins == "sync call":
                request.websocket.join("a")
            elif joins == "async call":
                await request.websocket.ajoin("a")

        made = visit(view)
        made.serve()
        made.client.closing()
        eventually(lambda: len(order) == 2)
        assert order == ["joined", "left"]

    def test_receivers_for_which_there_is_no_thread(
        self,
        visit: Serve,
        connected: Callable[..., None],
        monkeypatch: pytest.MonkeyPatch,
        request_log: Callable[..., list[Any]],
    ) -> None:
        """They miss the message of an async view, which is logged; the connection goes on."""
        connected("websocket_message", lambda **_: None)
        closed = threading.Event()

        def refuse(*_: object) -> None:
            raise RuntimeError("can't start new thread")

        @require_websocket
        async def view(request: Any) -> None:
            request.websocket.on_close(closed.set)
            with monkeypatch.context() as patch:
                patch.setattr(unpatched, "start_thread", refuse)
                await request.websocket.asend(await request.websocket.areceive())

        made = visit(view).serve()
        made.client.send("hello")
        assert made.client.receive() == "hello"
        assert made.client.closing()[0] == 1000
        assert closed.wait(10)
        assert "could not be sent" in request_log("dwebsocket")[0].getMessage()

    @pytest.mark.parametrize("is_async", [False, True])
    def test_groups_of_the_decorator(self, is_async: bool, visit: Serve, told: Told) -> None:
        """They follow the opening."""

        @require_websocket(groups=["a"])
        def view(request: Any) -> None:
            request.websocket.wait()

        @require_websocket(groups=["a"])
        async def async_view(request: Any) -> None:
            await request.websocket.areceive()

        made = visit(async_view if is_async else view)
        made.serve()
        made.client.send("go")
        made.client.closing()
        eventually(lambda: "group_left" in names(told))
        about = [name for name, _ in told if name not in ("websocket_message", "websocket_closed")]
        assert about == ["websocket_opened", "group_joined", "group_left"]
        assert dict(told)["group_left"]["group"] == group("a")

    def test_a_join_does_not_list_the_groups_before(
        self, visit: Serve, connected: Callable[..., None]
    ) -> None:
        """Else to join a thousand, one after the other, would take a million steps."""
        connected("group_joined", lambda **_: None)
        peaks: list[int] = []

        @require_websocket
        def view(request: Any) -> None:
            for number in range(1000):
                request.websocket.join(f"group-{number}")
            tracemalloc.start()
            try:
                request.websocket.join("last")
                peaks.append(tracemalloc.get_traced_memory()[1])
            finally:
                tracemalloc.stop()

        visit(view).serve().client.closing()
        assert peaks[0] < 30_000

    @pytest.mark.parametrize("how", ["close", "vanish", "raise", "kick"])
    def test_the_end_of_the_connection_leaves(self, how: str, visit: Serve, told: Told) -> None:
        """However it ends, and once a group."""

        @require_websocket
        async def view(request: Any) -> None:
            ws = request.websocket
            await ws.ajoin("a", "b")
            await ws.areceive()
            if how == "raise":
                raise Http404
            await ws.await_closed()
            ws.leave("a")

        made = visit(view)
        made.serve()
        eventually(lambda: names(told).count("group_joined") == 2)
        made.client.send("go")
        if how == "close":
            made.client.close()
        elif how == "vanish":
            made.client.vanish()
        elif how == "kick":
            group("a").close(4000, "out")
        eventually(lambda: names(told).count("group_left") == 2)
        left = [facts["group"] for name, facts in told if name == "group_left"]
        assert set(left) == {group("a"), group("b")}

    def test_interrupted(self, open_websocket: Callable[..., Any], told: Told) -> None:
        """For each member in this process."""
        here, other = open_websocket().websocket, open_websocket().websocket
        here.join("a", "b")
        other.join("b")
        told.clear()
        membership_signals.note_interrupted("default", ["a", "c"])
        assert [(name, facts["websocket"], facts["group"]) for name, facts in told] == [
            ("group_interrupted", here, group("a"))
        ]


@pytest.mark.parametrize("error", [asyncio.CancelledError, SystemExit])
def test_receiver_whose_exception_django_does_not_catch(
    connected: Callable[..., None], request_log: Any, error: type[BaseException]
) -> None:
    """The signals that an event loop sends after it reach their receivers."""
    told: list[Any] = []

    def receive(sender: object, websocket: Any, **facts: Any) -> None:
        told.append(websocket)
        if websocket == 1:
            raise error

    async def main() -> None:
        for number in (1, 2):
            signals.send(signals.group_interrupted, number, None)

    connected("group_interrupted", receive)
    asyncio.run(main())
    eventually(lambda: told == [1, 2])
    eventually(lambda: not signals._calls.is_working)
    assert [record.exc_info[0] for record in request_log("dwebsocket")] == [error]


def test_database_connection_that_cannot_be_closed(
    connected: Callable[..., None], monkeypatch: pytest.MonkeyPatch, request_log: Any
) -> None:
    """The signals that an event loop sends after it reach their receivers."""
    told: list[Any] = []

    def fail() -> None:
        monkeypatch.undo()
        raise DatabaseError("it is broken")

    async def main() -> None:
        for number in (1, 2):
            signals.send(signals.group_interrupted, number, None)

    connected("group_interrupted", lambda websocket, **facts: told.append(websocket))
    monkeypatch.setattr(connections, "close_all", fail)
    asyncio.run(main())
    eventually(lambda: told == [1, 2])
    assert [record.exc_info[0] for record in request_log("dwebsocket")] == [DatabaseError]


def test_announcing_connection_passes_all_else_on(open_websocket: Callable[..., Any]) -> None:
    """Such as what a group needs of it."""
    live = open_websocket()
    announcing = AnnouncingConnection(live.connection, live.websocket)
    assert announcing.id == live.connection.id
    assert announcing.as_member() is live.connection


def test_signals_that_wait_for_a_slow_receiver_have_a_bound(
    connected: Callable[..., None], request_log: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dropped signals are counted in the log; afterwards all is as before."""
    monkeypatch.setattr(signals, "_MOST_WAITING", 3)
    begun, release, told = threading.Event(), threading.Event(), []

    def receive(sender: object, websocket: Any, **facts: Any) -> None:
        begun.set()
        assert release.wait(60)
        told.append(websocket)

    async def send(*numbers: int) -> None:
        for number in numbers:
            signals.send(signals.websocket_refused, number, None)

    connected("websocket_refused", receive)
    asyncio.run(send(0))
    assert begun.wait(60)
    asyncio.run(send(*range(1, 10)))
    release.set()
    eventually(lambda: not signals._calls.is_working)
    assert told == [0, 1, 2, 3]
    asyncio.run(send(10))
    eventually(lambda: told[-1] == 10)
    eventually(lambda: len(request_log("dwebsocket")) == 2)
    first, last = (record.getMessage() for record in request_log("dwebsocket"))
    assert "3 calls wait" in first
    assert last.startswith("6 signals")


def test_connections_that_join_while_an_interruption_is_told(
    open_websocket: Callable[..., Any], connected: Callable[..., None]
) -> None:
    """Do no harm: the thread that tells goes on."""
    connected("group_interrupted", lambda **facts: None)
    live, joined = open_websocket(), []

    class Socket:
        _groups_noted = None

    def join() -> None:
        for _ in range(2000):
            joined.append(Socket())
            membership_signals._note(group("a"), joined[-1])  # type: ignore[arg-type]

    live.websocket.join("a")
    joiner = threading.Thread(target=join)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        joiner.start()
        while joiner.is_alive():
            membership_signals.note_interrupted("default", ["b"])
    finally:
        joiner.join()
        sys.setswitchinterval(interval)


class Plain(WebSocketHandler):
    def receive(self, message: str) -> None:
        self.websocket.send(message)

    def disconnect(self, code: int, reason: str) -> None:
        ENDS.append(code)


class Ticking(Plain):
    every = 3600.0


class InLoop(WebSocketHandler):
    async def receive(self, message: str) -> None:
        await self.websocket.asend(message)

    async def disconnect(self, code: int, reason: str) -> None:
        ENDS.append(code)


ENDS: list[int] = []


@pytest.mark.parametrize("handler", [Plain, Ticking, InLoop])
def test_a_receiver_that_is_cancelled_ends_the_connection_of_a_handler(
    handler: type[WebSocketHandler], override: Callable[..., None]
) -> None:
    """As that of a view: it would get no message any more, and never be told of its end."""

    def cancels(message: str, **_: Any) -> None:
        if message == "cancel":
            raise asyncio.CancelledError

    ENDS.clear()
    override(ROOT_URLCONF=(path("", handler.as_view()),))
    signals.websocket_message.connect(cancels)
    try:
        with WebSocketClient(raise_request_exception=False).websocket("/") as page:
            page.send("one")
            assert page.receive() == "one"
            page.send("cancel")
            assert page.wait_closed() == 1011
    finally:
        signals.websocket_message.disconnect(cancels)
    eventually(lambda: ENDS == [1011])


@pytest.mark.parametrize("name", ["websocket_opened", "websocket_message"])
def test_a_receiver_that_exits_ends_no_loop(
    name: str, override: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    """An event loop that a task leaves by SystemExit ends, with all its connections."""

    def exits(**_: Any) -> None:
        raise SystemExit

    override(ROOT_URLCONF=(path("", InLoop.as_view()),))
    signal = getattr(signals, name)
    signal.connect(exits)
    try:
        with WebSocketClient().websocket("/") as page:
            page.send("one")
            assert page.receive() == "one"
    finally:
        signal.disconnect(exits)
    assert "could not be sent" in caplog.text
