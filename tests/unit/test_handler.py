"""`WebSocketHandler`: its methods, their order, their threads, and what they leave behind."""

from __future__ import annotations

import asyncio
import errno
import threading
import time
from contextvars import ContextVar
from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, ClassVar

import pytest
from asgiref.sync import sync_to_async
from django.core.exceptions import PermissionDenied
from django.db import connection, transaction
from django.http import Http404, HttpResponse
from django.test import override_settings
from django.utils import translation
from visit import handshake

import dwebsocket
from dwebsocket import ConnectionClosed, UsageError, WebSocketHandler, _core, group, runners
from dwebsocket.compat import unpatched
from dwebsocket.request import database
from dwebsocket.runners import handler as life
from dwebsocket.runners import moving
from dwebsocket.runners.handler_green import GreenHandlers
from dwebsocket.runners.handler_threads import HandlerThreads
from support.waiting import eventually

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable, Iterator

    from visit import Serve

room: ContextVar[Any] = ContextVar("room")

KINDS = ["sync", "async", "async receive", "async rest"]


@pytest.fixture(autouse=True)
def _all_ended() -> Iterator[None]:
    """Groups of this process alone; and no handler is left at the end."""
    with override_settings(WEBSOCKET_GROUPS={"default": {"BACKEND": "dwebsocket.groups.process"}}):
        yield
    assert runners.join(10)
    eventually(lambda: not handler_threads(), what="no thread of handlers is left")


def handler_threads() -> list[str]:
    """The names of the threads that run handlers now."""
    return [each.name for each in threading.enumerate() if each.name.startswith("dwebsocket-handl")]


def of_kind(cls: type[WebSocketHandler], kind: str) -> type[WebSocketHandler]:
    """Make (some) methods of a class coroutine functions that call the sync ones."""

    def coroutine(method: Callable[..., Any]) -> Callable[..., Any]:
        async def call(self: Any, *args: Any) -> Any:
            await asyncio.sleep(0)
            return method(self, *args)

        return call

    names = ["connect", "receive", "disconnect", "tick"]
    chosen = {
        "sync": [],
        "async": names,
        "async receive": ["receive"],
        "async rest": ["connect", "disconnect", "tick"],
    }[kind]
    changed = {name: coroutine(vars(cls)[name]) for name in chosen if name in vars(cls)}
    return type(cls.__name__, (cls,), changed)


def asking(kind: str) -> type[WebSocketHandler]:
    """A handler that asks the database for each message."""

    def ask(message: str) -> None:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
        if message == "leave open":
            connection.set_autocommit(False)
        if message == "leave a block open":
            transaction.atomic().__enter__()

    class Asks(WebSocketHandler):
        def receive(self, message: Any) -> None:
            ask(message)
            self.websocket.send_text("asked")

        def disconnect(self, code: int, reason: str) -> None:
            """Is a coroutine function in handlers of some kinds."""

    class AsksInThread(Asks):
        async def receive(self, message: Any) -> None:
            await sync_to_async(ask)(message)
            await self.websocket.asend_text("asked")

    is_async = kind in ("async", "async receive")
    return AsksInThread if is_async else of_kind(Asks, kind)


class Echo(WebSocketHandler):
    """Echo, and note what is called."""

    seen: ClassVar[list[Any]] = []

    def connect(self) -> None:
        self.count = 0
        self.seen.append("connect")

    def receive(self, message: Any) -> None:
        self.count += 1
        self.seen.append(message)
        self.websocket.send_text(message) if isinstance(
            message, str
        ) else self.websocket.send_bytes(message)

    def disconnect(self, code: int, reason: str) -> None:
        self.seen.append((self.count, code, reason))


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    """Which methods are coroutine functions."""
    return str(request.param)


class TestMethods:
    """connect, receive, disconnect."""

    def test_are_called_in_order_with_exact_types(self, kind: str, visit: Serve) -> None:
        """One object has the whole connection."""
        seen: list[Any] = []
        made = visit(of_kind(Echo, kind).as_view(seen=seen))
        made.serve()
        for message in ("né", b"\xff", ""):
            made.client.send(message)
            assert made.client.receive() == message
        made.client.close(4001, "bye")
        assert made.client.closing()[0] == 4001
        eventually(lambda: len(seen) == 5)
        assert seen == ["connect", "né", b"\xff", "", (3, 4001, "bye")]

    def test_a_burst_keeps_its_order(self, kind: str, visit: Serve) -> None:
        """And what comes before the close is received."""
        seen: list[Any] = []
        made = visit(of_kind(Echo, kind).as_view(seen=seen))
        made.serve()
        numbers = [str(number) for number in range(200)]
        for number in numbers:
            made.client.send(number)
        assert [made.client.receive() for _ in numbers] == numbers
        made.client.send("last")
        made.client.close()
        eventually(lambda: len(seen) == 203)
        assert seen == ["connect", *numbers, "last", (201, 1000, "")]

    def test_what_comes_at_once_is_all_received(self, kind: str, visit: Serve) -> None:
        """However many messages a turn has."""
        seen: list[Any] = []

        class Notes(WebSocketHandler):
            def receive(self, message: Any) -> None:
                seen.append(message)

        made = visit(of_kind(Notes, kind).as_view())
        made.serve()
        numbers = [b"%03d" % number for number in range(500)]
        made.client.send_raw(b"".join(b"\x81\x83\0\0\0\0" + number for number in numbers))
        made.client.send("last")
        eventually(lambda: seen[-1:] == ["last"])
        assert seen == [*(number.decode() for number in numbers), "last"]

    def test_disconnect_when_the_client_vanishes(self, kind: str, visit: Serve) -> None:
        """With 1006."""
        seen: list[Any] = []
        made = visit(of_kind(Echo, kind).as_view(seen=seen))
        made.serve()
        made.client.vanish()
        eventually(lambda: len(seen) == 2)
        assert seen == ["connect", (0, 1006, "the client hung up")]

    def test_close_ends_it(self, kind: str, visit: Serve) -> None:
        """What waits behind it is not received."""
        seen: list[Any] = []

        class Closes(WebSocketHandler):
            def receive(self, message: Any) -> None:
                seen.append(message)
                self.websocket.close(4005, "enough")

            def disconnect(self, code: int, reason: str) -> None:
                seen.append((code, reason))

        made = visit(of_kind(Closes, kind).as_view())
        made.serve()
        made.client.send_raw(b"\x81\x81\0\0\0\0a\x81\x81\0\0\0\0b")
        assert made.client.closing() == (4005, "enough")
        eventually(lambda: len(seen) == 2)
        assert seen == ["a", (4005, "enough")]

    def test_nothing_is_needed(self, visit: Serve) -> None:
        """A class without methods takes connections."""
        made = visit(WebSocketHandler.as_view())
        made.serve()
        made.client.send("ignored")
        made.client.close()
        assert made.client.closing() == (1000, "")

    def test_many_at_once(self, kind: str, visit: Serve) -> None:
        """Each has its own object."""
        seen: list[Any] = []
        view = of_kind(Echo, kind).as_view(seen=seen)
        all_made = [visit(view).serve() for _ in range(20)]
        for number, made in enumerate(all_made):
            made.client.send(str(number))
        for number, made in enumerate(all_made):
            assert made.client.receive() == str(number)
            made.client.close()
        eventually(lambda: seen.count((1, 1000, "")) == 20)

    def test_attributes(self, kind: str, visit: Serve) -> None:
        """The URL's arguments, the request, its user."""
        seen: list[Any] = []

        class Looks(WebSocketHandler):
            def connect(self) -> None:
                self.request.user = "somebody"  # type: ignore[assignment]

            def receive(self, message: Any) -> None:
                seen.append((self.kwargs, self.args, self.request.path, self.user))
                self.websocket.close()

        made = visit(of_kind(Looks, kind).as_view(), environ=handshake("/7/"))
        made.serve()
        made.client.send("go")
        made.client.closing()
        assert seen == [({"number": 7}, (), "/7/", "somebody")]

    @pytest.mark.parametrize("name", ["_turn", "_plan", "_asked"])
    def test_names_of_the_base_class(self, name: str) -> None:
        """In place of them there would be silence: no method is called, and nothing is logged."""
        mixin = type("Mixin", (), {name: lambda self: None})
        for bases, members in (((mixin, Echo), {}), ((Echo,), {name: "theirs"})):
            cls = type("Chess", bases, members)
            with pytest.raises(
                TypeError, match=rf"\.{name} stands in place of a part of WebSocket"
            ):
                cls.as_view()

    def test_attributes_with_names_of_the_base_class(self) -> None:
        """Those that methods set, where Python lists them: since 3.13."""
        cls = type("Chess", (Echo,), {"__static_attributes__": ("_", "_mine", "_token")})
        with pytest.raises(TypeError, match=r"^Chess\._token stands in place of a part of"):
            cls.as_view()


class TestConnect:
    """Before the 101."""

    @pytest.mark.parametrize(
        ("outcome", "status"),
        [
            (PermissionDenied("no"), 403),
            (Http404("nothing"), 404),
            (HttpResponse("pay", status=402), 402),
            ("reject", 418),
        ],
    )
    def test_refuses(self, kind: str, outcome: Any, status: int, visit: Serve) -> None:
        """By an exception, by a response, by `reject`; disconnect is not called."""
        seen: list[Any] = []

        class Refuses(WebSocketHandler):
            def connect(self) -> Any:
                if outcome == "reject":
                    self.websocket.reject(418)
                    return None
                if isinstance(outcome, Exception):
                    raise outcome
                return outcome

            def receive(self, message: Any) -> None:
                seen.append(message)

            def disconnect(self, code: int, reason: str) -> None:
                seen.append(code)

        made = visit(of_kind(Refuses, kind).as_view())
        assert made.response.status_code == status
        assert runners.join(10)
        assert seen == []

    def test_may_accept_itself(self, visit: Serve) -> None:
        """With a subprotocol and headers, and go on."""

        class Accepts(WebSocketHandler):
            def connect(self) -> None:
                self.websocket.accept("b", {"X-Own": "yes"})
                self.websocket.send_text("welcome")

        environ = handshake(HTTP_SEC_WEBSOCKET_PROTOCOL="a, b")
        made = visit(Accepts.as_view(), environ=environ)
        made.serve()
        assert made.header("sec-websocket-protocol") == ["b"]
        assert made.header("x-own") == ["yes"]
        assert made.client.receive() == "welcome"
        made.client.close()

    def test_an_exception_behind_accept_closes(self, visit: Serve) -> None:
        """And disconnect is called, as the connection was open."""
        seen: list[Any] = []

        class Fails(WebSocketHandler):
            def connect(self) -> None:
                self.websocket.accept()
                raise RuntimeError("too late")

            def disconnect(self, code: int, reason: str) -> None:
                seen.append(code)

        made = visit(Fails.as_view())
        made.serve()
        assert made.client.closing() == (1011, "")
        eventually(lambda: seen == [1011])

    def test_decides_once(self, kind: str, visit: Serve) -> None:
        """An open connection says so, and keeps nothing else of its decision."""
        seen: list[Any] = []

        class Decides(WebSocketHandler):
            def connect(self) -> None:
                pass

            def receive(self, message: Any) -> None:
                try:
                    self.websocket.reject()
                except UsageError as error:
                    seen.append((str(error), self.websocket._decision))
                self.websocket.close()

        for _ in range(2):
            made = visit(of_kind(Decides, kind).as_view()).serve()
            made.client.send("go")
            made.client.closing()
        assert seen[0][0] == "this handshake was accepted already: a view decides once"
        assert seen[0][1] is seen[1][1]

    @pytest.mark.parametrize("is_async", [False, True])
    def test_takes_too_long(self, is_async: bool, visit: Serve) -> None:
        """The client is refused with 503."""
        may_end = threading.Event()

        class Sleeps(WebSocketHandler):
            handshake_timeout = 0.05

            def connect(self) -> None:
                may_end.wait(60)

        class AsyncSleeps(WebSocketHandler):
            handshake_timeout = 0.05

            async def connect(self) -> None:
                await asyncio.to_thread(may_end.wait, 60)

        made = visit((AsyncSleeps if is_async else Sleeps).as_view())
        assert made.response.status_code == 503
        may_end.set()


class TestErrors:
    """As in views: the same codes and records."""

    @pytest.mark.parametrize(
        ("error", "code", "logger"),
        [
            (PermissionDenied("no"), 1008, "django.request"),
            (Http404("nothing"), 4404, "django.request"),
            (RuntimeError("broken"), 1011, "django.request"),
            (dwebsocket.InvalidMessage("no JSON"), 1007, "dwebsocket"),
        ],
    )
    def test_receive_fails(
        self,
        kind: str,
        error: Exception,
        code: int,
        logger: str,
        visit: Serve,
        request_log: Callable[..., Any],
    ) -> None:
        """The connection closes, disconnect learns of it, nothing more is received."""
        seen: list[Any] = []

        class Fails(WebSocketHandler):
            def receive(self, message: Any) -> None:
                seen.append(message)
                raise error

            def disconnect(self, code: int, reason: str) -> None:
                seen.append(code)

        made = visit(of_kind(Fails, kind).as_view())
        made.serve()
        made.client.send_raw(b"\x81\x81\0\0\0\0a\x81\x81\0\0\0\0b")
        assert made.client.closing()[0] == code
        eventually(lambda: len(seen) == 2)
        assert seen == ["a", code]
        records = [each for each in request_log(logger) if hasattr(each, "event")]
        assert [each.code for each in records] == [code]

    def test_disconnect_fails(
        self, kind: str, visit: Serve, request_log: Callable[..., Any]
    ) -> None:
        """It is logged; the client has its code already."""

        class Fails(WebSocketHandler):
            def receive(self, message: Any) -> None:
                pass

            def disconnect(self, code: int, reason: str) -> None:
                raise RuntimeError("broken end")

        made = visit(of_kind(Fails, kind).as_view())
        made.serve()
        made.client.close(4002)
        assert made.client.closing() == (4002, "")
        eventually(lambda: [each for each in request_log("django.request") if each.exc_info])

    def test_sending_to_a_client_that_has_gone_is_no_error(
        self, visit: Serve, request_log: Callable[..., Any]
    ) -> None:
        """As in a view."""
        seen: list[Any] = []

        class Pushes(WebSocketHandler):
            def receive(self, message: Any) -> None:
                self.websocket.wait_closed()
                try:
                    while True:
                        self.websocket.send_text("too late")
                except ConnectionClosed:
                    seen.append("closed")
                    raise

            def disconnect(self, code: int, reason: str) -> None:
                seen.append(code)

        made = visit(Pushes.as_view())
        made.serve()
        made.client.send("go")
        made.client.close()
        eventually(lambda: 1000 in seen)
        assert seen == ["closed", 1000]
        assert request_log("django.request") == []

    def test_unmarked_coroutine(self, visit: Serve, request_log: Callable[..., Any]) -> None:
        """The error says what to do."""

        async def later() -> None:
            """Would never run."""

        class Gives(WebSocketHandler):
            def receive(self, message: Any) -> Any:
                return later()

        made = visit(Gives.as_view())
        made.serve()
        made.client.send("go")
        assert made.client.closing()[0] == 1011
        eventually(lambda: "markcoroutinefunction" in str(request_log()[-1].exc_info[1]))


def no_thread(*args: Any) -> None:
    """Start nothing, as a system that has no thread left."""
    raise RuntimeError("can't start new thread")


def living(visit: Serve, view: Any) -> Any:
    """Open a connection, and return it when its handler lives."""
    made = visit(view).serve()
    eventually(life.is_busy)
    return made


class TestEnd:
    """The end of a life comes once, whatever fails in it, and leaves nothing behind."""

    @pytest.fixture
    def reported(
        self, visit: Serve, monkeypatch: pytest.MonkeyPatch, request_log: Callable[..., Any]
    ) -> Callable[[], list[str]]:
        """Give a function that waits for the end, gives others turns, and returns the errors."""
        before = _core.open_connections()

        def errors() -> list[str]:
            eventually(lambda: life._open <= 0)
            monkeypatch.undo()
            for kind in ("sync", "async"):
                made = visit(of_kind(Echo, kind).as_view(seen=[])).serve()
                for number in range(20):
                    made.client.send(str(number))
                    assert made.client.receive() == str(number)
                made.client.vanish()
            eventually(lambda: (life._open, _core.open_connections()) == (0, before))
            return [str(record.exc_info[1]) for record in request_log("django.request")]

        return errors

    def test_no_thread_for_disconnect(
        self, visit: Serve, reported: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A handler in a loop ends without the call."""
        seen: list[Any] = []

        class Ends(WebSocketHandler):
            async def receive(self, message: Any) -> None:
                pass

            def disconnect(self, code: int, reason: str) -> None:
                seen.append(code)

        made = living(visit, Ends.as_view())
        monkeypatch.setattr(unpatched, "start_code", no_thread)
        made.client.vanish()
        assert reported() == ["can't start new thread"]
        assert seen == []

    def test_no_loop_for_disconnect(
        self, visit: Serve, reported: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A handler on threads ends without the call."""
        made = living(visit, of_kind(Echo, "async rest").as_view(seen=[]))
        monkeypatch.setattr(life.loop, "run", no_thread)
        made.client.vanish()
        assert reported() == ["can't start new thread"]

    def test_no_loop_for_tick(
        self, visit: Serve, reported: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The client gets 1011, and `disconnect` is called."""
        seen: list[Any] = []

        class Ticks(WebSocketHandler):
            every = 0.05

            def receive(self, message: Any) -> None:
                pass

            async def tick(self) -> None:
                pass

            def disconnect(self, code: int, reason: str) -> None:
                seen.append(code)

        made = living(visit, Ticks.as_view())
        monkeypatch.setattr(life.loop, "run", no_thread)
        assert made.client.closing()[0] == 1011
        assert reported() == ["can't start new thread"]
        assert seen == [1011]

    @pytest.mark.parametrize("view", [Echo, type("Plain", (WebSocketHandler,), {})])
    def test_no_descriptor_for_a_life_on_threads(
        self, visit: Serve, monkeypatch: pytest.MonkeyPatch, view: type[WebSocketHandler]
    ) -> None:
        """The client is told to come back, with and without a `connect`."""

        def refuse(*_: Any) -> None:
            raise OSError(errno.EMFILE, "Too many open files")

        monkeypatch.setattr(HandlerThreads, "enter", refuse)
        made = visit(view.as_view()).serve()
        assert made.client.closing()[0] == 1013

    @pytest.mark.parametrize("has_connect", [False, True])
    def test_no_descriptor_for_a_life_in_a_loop(
        self,
        visit: Serve,
        reported: Callable[[], list[str]],
        monkeypatch: pytest.MonkeyPatch,
        *,
        has_connect: bool,
    ) -> None:
        """The client is told to come back."""

        class Never(WebSocketHandler):
            survives = True

            async def receive(self, message: Any) -> None:
                raise AssertionError

        class NeverConnected(Never):
            async def connect(self) -> None:
                pass

        def refuse(**_: Any) -> None:
            raise OSError(errno.EMFILE, "Too many open files")

        monkeypatch.setattr(life.LoopHome, "current", refuse)
        made = visit((NeverConnected if has_connect else Never).as_view()).serve()
        assert made.client.closing() == (1013, "no descriptor for another handler")
        assert reported() == ["[Errno 24] Too many open files"]
        assert not moving.survivors()

    @pytest.mark.parametrize("what", ["handler.report_end", "view._moment"])
    def test_a_last_step_fails(
        self,
        what: str,
        kind: str,
        visit: Serve,
        reported: Callable[[], list[str]],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """The other steps are taken all the same."""
        seen: list[Any] = []

        class Ends(Echo):
            def connect(self) -> None:
                self.websocket.on_close(bool)
                super().connect()

        def fail(*args: Any, **kwargs: Any) -> None:
            raise LookupError("broken end")

        made = living(visit, of_kind(Ends, kind).as_view(seen=seen))
        monkeypatch.setattr(f"dwebsocket.runners.{what}", fail)
        made.client.vanish()
        assert reported() == ["broken end"]
        assert seen == ["connect", (0, 1006, "the client hung up")]

    def test_the_database_fails_before_a_call(
        self, visit: Serve, reported: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The connection ends, with 1011."""
        seen: list[Any] = []

        def fail() -> None:
            monkeypatch.undo()
            raise LookupError("broken connection")

        made = living(visit, Echo.as_view(seen=seen))
        monkeypatch.setattr(database, "close_old_connections", fail)
        made.client.send("x")
        assert made.client.closing()[0] == 1011
        assert reported() == ["broken connection"]
        assert seen == ["connect", (0, 1011, "")]

    def test_an_exit(
        self, visit: Serve, reported: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """An exit of its home closes with 1001, and `disconnect` is called."""
        seen: list[Any] = []

        class Exits(Echo):
            def receive(self, message: Any) -> None:
                raise SystemExit

        monkeypatch.setattr(HandlerThreads, "exits", (SystemExit,))
        made = living(visit, Exits.as_view(seen=seen))
        made.client.send("x")
        assert made.client.closing()[0] == 1001
        assert reported() == []
        assert [code for _, code, _ in seen[1:]] == [1001]

    def test_cancelled_while_disconnect_runs(
        self, visit: Serve, reported: Callable[[], list[str]]
    ) -> None:
        """`disconnect` is called once."""
        seen: list[Any] = []

        class Cancelled(WebSocketHandler):
            async def receive(self, message: Any) -> None:
                self.loop = asyncio.get_running_loop()
                await self.websocket.asend_text(message)

            def disconnect(self, code: int, reason: str) -> None:
                seen.append(code)
                if len(seen) == 1:
                    home, done = self._home, threading.Event()

                    def cancel_all() -> None:
                        # In the loop: no other thread may look at its tasks.
                        for task in list(home._tasks):
                            task.cancel()
                        done.set()

                    self.loop.call_soon_threadsafe(cancel_all)
                    assert done.wait(10)

        made = living(visit, Cancelled.as_view())
        made.client.send("x")
        assert made.client.receive() == "x"
        made.client.vanish()
        assert reported() == []
        assert seen == [1006]

    @pytest.mark.parametrize("kind", ["async", "async rest"])
    def test_the_loop_is_closed_meanwhile(
        self, kind: str, visit: Serve, reported: Callable[[], list[str]]
    ) -> None:
        """The end is counted once."""

        class Closed(WebSocketHandler):
            def receive(self, message: Any) -> None:
                pass

            def disconnect(self, code: int, reason: str) -> None:
                # A coroutine that is thrown away gets this.
                raise GeneratorExit

        made = living(visit, of_kind(Closed, kind).as_view())
        made.client.vanish()
        assert reported() == []

    def test_no_thread_for_a_method_that_nobody_has_written(
        self, visit: Serve, reported: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The end needs no thread."""

        class Reads(WebSocketHandler):
            async def receive(self, message: Any) -> None:
                pass

        made = living(visit, Reads.as_view())
        monkeypatch.setattr(unpatched, "start_code", no_thread)
        made.client.vanish()
        assert reported() == []


class TestThreads:
    """The bounded pool."""

    def test_none_between_messages(self, visit: Serve) -> None:
        """Fifty quiet connections share a few threads; on a busy machine some more."""
        view = Echo.as_view(seen=[])
        all_made = [visit(view).serve() for _ in range(50)]
        for made in all_made:
            made.client.send("hello")
            assert made.client.receive() == "hello"
        assert 1 <= len(handler_threads()) <= 20
        for made in all_made:
            made.client.close()

    def test_slow_ones_do_not_hold_up_a_quick_one(
        self, visit: Serve, override: Callable[..., None]
    ) -> None:
        """As long as there is a thread."""
        override(WEBSOCKET_HANDLER_THREADS=4)
        may_go_on = threading.Event()
        at_work: list[int] = []

        class Slow(WebSocketHandler):
            def receive(self, message: Any) -> None:
                at_work.append(1)
                may_go_on.wait(60)
                self.websocket.send_text(message)

        slow = [visit(Slow.as_view()).serve() for _ in range(3)]
        for made in slow:
            made.client.send("a")
            made.client.send("b")
        eventually(lambda: len(at_work) == 3)
        quick = visit(Echo.as_view(seen=[])).serve()
        for _ in range(10):
            quick.client.send("quick")
            assert quick.client.receive() == "quick"
        # No slow connection has a second thread.
        assert len(at_work) == 3
        assert len(handler_threads()) <= 4
        may_go_on.set()
        for made in slow:
            assert [made.client.receive(), made.client.receive()] == ["a", "b"]
            made.client.close()
        quick.client.close()

    def test_limit(self, visit: Serve, override: Callable[..., None]) -> None:
        """More calls wait for their turn, and all are made."""
        override(WEBSOCKET_HANDLER_THREADS=2)
        may_go_on = threading.Event()
        at_work: list[str] = []

        class Slow(WebSocketHandler):
            def receive(self, message: Any) -> None:
                at_work.append(threading.current_thread().name)
                may_go_on.wait(60)
                self.websocket.send_text(message)

        all_made = [visit(Slow.as_view()).serve() for _ in range(5)]
        for made in all_made:
            made.client.send("x")
        eventually(lambda: len(at_work) == 2)
        assert len(set(at_work)) == 2
        assert len(handler_threads()) == 2
        may_go_on.set()
        for made in all_made:
            assert made.client.receive() == "x"
            made.client.close()

    def test_clients_that_take_nothing_leave_others_their_turns(
        self, visit: Serve, override: Callable[..., None]
    ) -> None:
        """Half of the threads may wait for them; where that many do, the next is too slow."""
        override(WEBSOCKET_HANDLER_THREADS=2, WEBSOCKET_SEND_TIMEOUT=60)
        sending: list[str] = []

        class Floods(WebSocketHandler):
            def receive(self, message: Any) -> None:
                sending.append("begun")
                while True:
                    self.websocket.send(b"x" * 1_000_000)

            def disconnect(self, code: int, reason: str) -> None:
                sending.append(f"{code}")

        floods, echo = Floods.as_view(), Echo.as_view()
        deaf = [visit(floods).serve() for _ in range(3)]
        for made in deaf:
            made.client.send("x")
        eventually(lambda: sending.count("1013") == 2)
        assert sending.count("begun") == 3
        other = visit(echo).serve()
        other.client.send("still there")
        assert other.client.receive() == "still there"
        other.client.close()
        for made in deaf:
            made.client.vanish()

    def test_no_second_thread(
        self, visit: Serve, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        """The first one makes all calls, and the log says so."""
        may_go_on = threading.Event()

        class Slow(WebSocketHandler):
            def receive(self, message: Any) -> None:
                may_go_on.wait(60)
                self.websocket.send_text(message)

        start = unpatched.start_code

        def start_first(name: str, target: Callable[[], None]) -> None:
            if name.startswith("dwebsocket-handler") and not name.endswith("-1"):
                raise RuntimeError("can't start new thread")
            start(name, target)

        monkeypatch.setattr(unpatched, "start_code", start_first)
        all_made = [visit(Slow.as_view()).serve() for _ in range(3)]
        for made in all_made:
            made.client.send("x")
        eventually(lambda: caplog.text)
        may_go_on.set()
        for made in all_made:
            assert made.client.receive() == "x"
            made.client.close()
        assert "No thread for another WebSocket handler" in caplog.text

    def test_refused_threads_are_reported_once(
        self, monkeypatch: pytest.MonkeyPatch, request_log: Callable[..., list[logging.LogRecord]]
    ) -> None:
        """Each message asks for one: the log has one line, until the system gives a thread."""
        threads, asked, has_none = HandlerThreads(), 0, False
        start = unpatched.start_code

        def start_or_refuse(name: str, target: Callable[[], None]) -> None:
            nonlocal asked
            asked += 1
            if has_none:
                raise RuntimeError("can't start new thread")
            start(name, target)

        def want(times: int) -> tuple[int, int]:
            nonlocal asked
            asked = 0
            for _ in range(times):
                eventually(lambda: not threads._is_starting)
                threads._start_another(hub)
            return asked, len(request_log("dwebsocket"))

        monkeypatch.setattr(unpatched, "start_code", start_or_refuse)
        token = threads.enter(SimpleNamespace())  # type: ignore[arg-type]
        assert threads._hub is not None
        hub = threads._hub
        try:
            has_none = True
            assert want(3) == (3, 1)
            has_none = False
            assert want(2) == (2, 1)
            has_none = True
            assert want(3) == (3, 2)
        finally:
            threads.leave(token)
        eventually(lambda: not threads.are_alive)
        for record in request_log("dwebsocket"):
            assert "No thread for another WebSocket handler" in record.getMessage()
            assert "can't start new thread" in record.getMessage()
            assert record.exc_info is None

    @pytest.mark.parametrize("has_async_receive", [False, True], ids=["sync", "mixed"])
    def test_a_slow_class_does_not_starve_another_one(
        self,
        has_async_receive: bool,
        visit: Serve,
        override: Callable[..., None],
    ) -> None:
        """A quick call waits for one of those that are under way, and not for all before it."""
        override(WEBSOCKET_HANDLER_THREADS=2)
        turns = threading.Semaphore(0)
        at_work: list[str] = []

        class Slow(WebSocketHandler):
            def receive(self, message: Any) -> None:
                at_work.append("slow")
                turns.acquire(timeout=60)

        class Quick(WebSocketHandler):
            def receive(self, message: Any) -> None:
                at_work.append("quick")
                self.websocket.send_text(message)

        class Mixed(Quick):
            async def receive(self, message: Any) -> None:
                await sync_to_async(super().receive, thread_sensitive=False)(message)

            def disconnect(self, code: int, reason: str) -> None:
                at_work.append("quick")

        view = Slow.as_view()
        slow = [visit(view).serve() for _ in range(20)]
        for made in slow:
            made.client.send("x")
        eventually(lambda: len(at_work) == 2)
        quick = visit((Mixed if has_async_receive else Quick).as_view()).serve()
        if has_async_receive:
            quick.client.close()
        else:
            quick.client.send("quick")
        try:
            # Its first turn may come before its message, and that may still be on its way.
            for _ in range(4):
                before = len(at_work)
                turns.release()
                eventually(lambda: len(at_work) > before)  # noqa: B023
            assert "quick" in at_work
        finally:
            turns.release(len(slow))
        for made in slow if has_async_receive else [quick, *slow]:
            made.client.close()

    def test_classes_have_turns_on_green_threads(self, override: Callable[..., None]) -> None:
        """As on threads: a job of the class that has had no turn for longest comes first."""
        override(WEBSOCKET_HANDLER_THREADS=1)
        green_threads: list[Any] = []
        calls: list[Callable[[], None]] = []
        runner = SimpleNamespace(exits=(), run=lambda _, job: green_threads.append(job))
        watcher = SimpleNamespace(call_on=calls.append, core=None)
        made = GreenHandlers(runner, watcher)  # type: ignore[arg-type]
        turns: list[str] = []

        def enter(name: str, lane: int) -> None:
            made.enter(SimpleNamespace(_run_turn=lambda: had_turn(name)), lane)
            calls[-1]()

        def had_turn(name: str) -> None:
            turns.append(name)
            if name == "slow 1":
                enter("quick 1", 2)
                enter("quick 2", 2)

        for number in (1, 2, 3):
            enter(f"slow {number}", 1)
        (work,) = green_threads
        made._rest = lambda: False  # type: ignore[method-assign]
        work()
        assert turns == ["slow 1", "quick 1", "slow 2", "quick 2", "slow 3"]

    def test_drain(self, kind: str, visit: Serve) -> None:
        """It waits for disconnect."""
        seen: list[Any] = []
        made = visit(of_kind(Echo, kind).as_view(seen=seen))
        made.serve()
        assert not dwebsocket.drain(0, timeout=0)
        try:
            assert made.client.closing()[0] == 1012
            made.client.vanish()
            assert dwebsocket.drain(timeout=30)
            assert seen == ["connect", (0, 1012, "restarting")]
        finally:
            dwebsocket._core.reopen()


class TestSurroundings:
    """What Django does around a request."""

    def test_handlers_that_equal_each_other_are_two(self, kind: str, visit: Serve) -> None:
        """As of a dataclass, which has no hash then."""

        @dataclass
        class Equal(Echo):
            survives = True

        view = of_kind(Equal, kind).as_view(seen=[])
        opened = [visit(view).serve() for _ in range(2)]
        for made in opened:
            made.client.send("here")
            assert made.client.receive() == "here"
        one, two = moving.survivors()
        assert one is not two
        opened[0].client.close()
        eventually(lambda: len(moving.survivors()) == 1)
        opened[1].client.close()

    def test_language_and_context(self, kind: str, visit: Serve) -> None:
        """Those of the request, in each call."""
        seen: list[Any] = []

        class Looks(WebSocketHandler):
            def connect(self) -> None:
                seen.append(translation.get_language())

            def receive(self, message: Any) -> None:
                seen.append(translation.get_language())

            def disconnect(self, code: int, reason: str) -> None:
                seen.append(translation.get_language())

        middleware = ["test_handler.in_danish"]
        made = visit(of_kind(Looks, kind).as_view(), middleware=middleware)
        made.serve()
        made.client.send("go")
        made.client.close()
        eventually(lambda: len(seen) == 3)
        assert seen == ["da", "da", "da"]

    def test_what_a_call_sets_is_not_for_the_next_one(self, kind: str, visit: Serve) -> None:
        """Also if that is there already, and needs no other turn on a thread or in a loop."""
        seen: list[Any] = []

        class Sets(WebSocketHandler):
            every = 60.0

            def receive(self, message: Any) -> None:
                seen.append((translation.get_language(), room.get(None)))
                translation.activate("de")
                room.set(message)

            def tick(self) -> None:
                """Never."""

            def disconnect(self, code: int, reason: str) -> None:
                seen.append((translation.get_language(), room.get(None)))

        middleware = ["test_handler.in_danish"]
        for every in (60.0, None):
            cls = of_kind(type("Sets", (Sets,), dict(vars(Sets), every=every)), kind)
            made = visit(cls.as_view(), middleware=middleware)
            for message in "abc":
                made.client.send(message)
            made.serve()
            eventually(lambda: len(seen) == 3)
            made.client.close()
            eventually(lambda: len(seen) == 4)
            assert seen == [("da", None)] * 4
            seen.clear()

    def test_its_own_websocket_is_known(self, kind: str, visit: Serve) -> None:
        """In each method: `drain` there would wait for itself."""
        seen: list[Any] = []

        class Drains(WebSocketHandler):
            def connect(self) -> None:
                self.drain()

            def receive(self, message: Any) -> None:
                self.drain()

            def disconnect(self, code: int, reason: str) -> None:
                self.drain()

            def drain(self) -> None:
                try:
                    dwebsocket.drain(timeout=1)
                except UsageError:
                    seen.append("refused")

        made = visit(of_kind(Drains, kind).as_view())
        try:
            made.serve()
            made.client.send("go")
            eventually(lambda: len(seen) == 2)
            made.client.close()
            eventually(lambda: len(seen) == 3)
        finally:
            dwebsocket._core.reopen()

    def test_database_connection_is_kept_for_the_next_message(
        self, kind: str, visit: Serve, opened: list[Any], tables: None
    ) -> None:
        """However old it is, unless a transaction was left open; it is closed with the handler."""
        with override_settings(WEBSOCKET_HANDLER_THREADS=1):
            made = visit(asking(kind).as_view())
            made.serve()
            for message in ("a", "b", "leave open", "a", "b"):
                made.client.send(message)
                assert made.client.receive() == "asked"
        assert len(opened) == 2
        made.client.close()
        eventually(lambda: all(each.connection is None for each in opened))

    @pytest.mark.parametrize("left", ["leave open", "leave a block open"])
    def test_transaction_left_open_is_not_for_a_message_that_is_there_already(
        self, kind: str, left: str, visit: Serve, opened: list[Any], tables: None
    ) -> None:
        """Those that are handled without a pause have connections as others."""
        with override_settings(WEBSOCKET_HANDLER_THREADS=1):
            made = visit(asking(kind).as_view())
            for message in (left, "a", left, "a"):
                made.client.send(message)
            made.serve()
            assert [made.client.receive() for _ in range(4)] == ["asked"] * 4
        assert len(opened) == 3

    def test_idle_database_connection_is_given_back(
        self,
        kind: str,
        visit: Serve,
        opened: list[Any],
        tables: None,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """By the thread that has it, while nothing comes."""
        monkeypatch.setattr(database, "IDLE_AFTER_S", 0.05)
        made = visit(asking(kind).as_view())
        made.serve()
        made.client.send("a")
        assert made.client.receive() == "asked"
        eventually(lambda: opened and opened[0].connection is None)
        made.client.close()

    def test_session_is_saved_behind_each_call(self, visit: Serve) -> None:
        """Not only at the end."""
        saved: list[Any] = []

        class Session:
            modified = False
            session_key = "key"

            def save(self) -> None:
                saved.append(1)
                self.modified = False

        class Changes(WebSocketHandler):
            def receive(self, message: Any) -> None:
                self.request.session.modified = True

        class Echoes(Changes):
            def connect(self) -> None:
                self.request.session = Session()  # type: ignore[assignment]

        made = visit(Echoes.as_view())
        made.serve()
        made.client.send("a")
        eventually(lambda: saved == [1])
        made.client.send("b")
        eventually(lambda: saved == [1, 1])
        made.client.close()


def in_danish(get_response: Callable[..., Any]) -> Callable[..., Any]:
    """Middleware that sets a language, as the one for locales."""

    def middleware(request: Any) -> Any:
        translation.activate("da")
        return get_response(request)

    return middleware


class TestTick:
    """`every` and `tick`."""

    def test_is_called_again_and_again(self, kind: str, visit: Serve) -> None:
        """Beside messages; not after the end."""

        class Ticks(WebSocketHandler):
            every = 0.02
            count = 0

            def receive(self, message: Any) -> None:
                self.websocket.send_text(message)

            def tick(self) -> None:
                self.count += 1
                self.websocket.send_text(f"tick {self.count}")

        made = visit(of_kind(Ticks, kind).as_view())
        made.serve()
        assert [made.client.receive() for _ in range(3)] == ["tick 1", "tick 2", "tick 3"]
        made.client.send("hello")
        seen: list[Any] = []
        while "hello" not in seen:
            seen.append(made.client.receive())
        made.client.close()
        made.client.closing()

    def test_the_first_comes_when_its_time_has_passed(self, kind: str, visit: Serve) -> None:
        """Not as the connection opens."""

        class Ticks(WebSocketHandler):
            every = 0.1

            def connect(self) -> None:
                self.opened = time.monotonic()

            def tick(self) -> None:
                self.websocket.send_json(time.monotonic() - self.opened)

        made = visit(of_kind(Ticks, kind).as_view())
        made.serve()
        # The engine's timers are those of the system, which count in milliseconds.
        assert float(made.client.receive()) > 0.09
        made.client.close()

    def test_one_call_at_a_time(self, kind: str, visit: Serve) -> None:
        """A tick waits for the message, and the message for the tick."""
        at_work: list[int] = []
        together: list[int] = []

        class Ticks(WebSocketHandler):
            every = 0.002

            def receive(self, message: Any) -> None:
                self.work()
                self.websocket.send_text(message)

            def tick(self) -> None:
                self.work()

            def work(self) -> None:
                at_work.append(1)
                together.append(len(at_work))
                threading.Event().wait(0.001)
                at_work.pop()

        made = visit(of_kind(Ticks, kind).as_view())
        made.serve()
        for number in range(100):
            made.client.send(str(number))
            assert made.client.receive() == str(number)
        assert set(together) == {1}
        assert len(together) >= 100
        made.client.close()

    def test_comes_between_messages_that_wait(self, kind: str, visit: Serve) -> None:
        """A client that always has one more message does not keep it back."""
        order: list[str] = []

        class Ticks(WebSocketHandler):
            every = 0.001

            def receive(self, message: Any) -> None:
                if message == "first":
                    eventually(lambda: self._tick_is_due)
                    eventually(lambda: self.websocket.count_messages() == 2)
                order.append(message)

            def tick(self) -> None:
                order.append("tick")

            def disconnect(self, code: int, reason: str) -> None:
                order.append("end")

        made = visit(of_kind(Ticks, kind).as_view()).serve()
        for message in ("first", "second", "third"):
            made.client.send(message)
        eventually(lambda: "third" in order)
        made.client.close()
        eventually(lambda: "end" in order)
        first = order.index("first")
        assert order[first + 1] == "tick"

    def test_one_of_two_threads_has_the_turn(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A tick and a message may be announced at the same moment; the other turn follows."""
        handler = Echo()
        handler._is_at_work = handler._again = False
        claims: list[bool] = []

        class Lock:
            """The other thread comes as soon as the first one has let go of the lock."""

            def __enter__(self) -> None:
                """Nobody else has it."""

            def __exit__(self, *_: object) -> None:
                monkeypatch.undo()
                claims.append(handler._claim())

        monkeypatch.setattr(life, "_lock", Lock())
        claims.append(handler._claim())
        assert sorted(claims) == [False, True]
        assert handler._is_at_work
        assert handler._again

    @pytest.mark.parametrize("every", [0, -1, "often", True])
    def test_wrong_value(self, every: Any) -> None:
        """Is found when the view is made."""
        with pytest.raises(ValueError, match=r"every must be"):
            WebSocketHandler.as_view(every=every)


class TestGroups:
    """`groups` and `self.group`."""

    def test_are_joined_and_filled_in(self, kind: str, visit: Serve) -> None:
        """From the URL's arguments."""

        class Chat(WebSocketHandler):
            groups = ("room-{number}",)

            def receive(self, message: Any) -> None:
                self.group("room-{number}").send(message)

        made = visit(of_kind(Chat, kind).as_view(), environ=handshake("/7/"))
        made.serve()
        made.client.send("to all")
        assert made.client.receive() == "to all"
        group("room-7").send("from outside")
        assert made.client.receive() == "from outside"
        made.client.close()
        eventually(lambda: group("room-7").count() == 0)

    def test_group_without_an_argument(self) -> None:
        """Is the caller's mistake; a plain name is taken as it is."""
        made = WebSocketHandler()
        made.args, made.kwargs, made.request = (), {"room": "a"}, handshake  # type: ignore[assignment]
        assert made.group("plain") == group("plain")
        assert made.group("room-{room}") == group("room-a")
        with pytest.raises(UsageError, match="no argument"):
            made.group("room-{other}")


class TestView:
    """`as_view`."""

    def test_plain_request_gets_400(self, visit: Serve) -> None:
        """As with `require_websocket`."""
        plain = handshake(HTTP_UPGRADE=None, HTTP_SEC_WEBSOCKET_KEY=None)
        plain.pop("HTTP_SEC_WEBSOCKET_VERSION")
        assert visit(Echo.as_view(seen=[]), environ=plain).response.status_code == 400

    @pytest.mark.parametrize("is_async", [False, True])
    def test_plain_request_with_get(self, is_async: bool, visit: Serve) -> None:
        """The method answers it."""

        class Page(Echo):
            def get(self, request: Any) -> HttpResponse:
                assert self.websocket is None
                return HttpResponse(f"page of {self.request.path}")

        class AsyncPage(Echo):
            async def get(self, request: Any) -> HttpResponse:
                return HttpResponse(f"page of {self.request.path}")

        plain = handshake(HTTP_UPGRADE=None, HTTP_SEC_WEBSOCKET_KEY=None)
        plain.pop("HTTP_SEC_WEBSOCKET_VERSION")
        view = (AsyncPage if is_async else Page).as_view(seen=[])
        assert visit(view, environ=dict(plain)).response.content == b"page of /"
        assert visit(view, environ={**plain, "REQUEST_METHOD": "POST"}).response.status_code == 405
        made = visit(view).serve()
        made.client.send("hello")
        assert made.client.receive() == "hello"
        made.client.close()

    def test_options(self, visit: Serve) -> None:
        """Are attributes of the class, or arguments."""

        class Small(Echo):
            max_message_size = 10

        made = visit(Small.as_view(seen=[])).serve()
        made.client.send("x" * 11)
        assert made.client.closing()[0] == 1009
        made = visit(Echo.as_view(seen=[], max_message_size=5)).serve()
        made.client.send("x" * 6)
        assert made.client.closing()[0] == 1009

    def test_wrong_arguments(self) -> None:
        """Are found when the view is made."""
        with pytest.raises(TypeError, match="'unknown'"):
            Echo.as_view(unknown=1)
        with pytest.raises(ValueError, match="max_message_size"):
            Echo.as_view(seen=[], max_message_size=-1)

    def test_name(self) -> None:
        """Is that of the class, for logs and for Django."""
        view: Any = Echo.as_view(seen=[])
        assert view.__qualname__ == "Echo"
        assert issubclass(view.view_class, Echo)

    def test_websockets_of_the_middleware(self, visit: Serve) -> None:
        """It leaves the handshake to the handler."""
        made = visit(
            Echo.as_view(seen=[]), middleware=["dwebsocket.middleware.WebSocketMiddleware"]
        )
        made.serve()
        made.client.send("hello")
        assert made.client.receive() == "hello"
        made.client.close()


def test_no_handler_is_counted_twice() -> None:
    """All have ended by now."""
    eventually(lambda: not life.is_busy())
