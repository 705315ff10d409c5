"""Calls beside the view of a connection: `on_close`, `start`, `astart`, `every`, `pump`."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import gzip
import io
import os
import queue
import socket
import ssl
import subprocess
import sys
import threading
import time
import weakref
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied
from django.db import connections
from django.utils import translation
from threads import in_plain_thread

from dwebsocket import ConnectionClosed, UsageError, WebSocket, WebSocketHandler, accept_websocket
from dwebsocket.api import close_callbacks, helpers
from dwebsocket.api.helpers import Helper
from dwebsocket.api.waiting.waiter import THREAD
from dwebsocket.request import database
from dwebsocket.telemetry import records
from dwebsocket.testing import Clock
from support.certificates import client_context, server_file
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from peer import LiveWebSocket
    from visit import Serve

    Open = Callable[..., LiveWebSocket]

PROGRAM = "import sys\nfor number in range({count}): print('grüße', number)"


def process(program: str, **options: Any) -> subprocess.Popen[Any]:
    """Start a Python program whose output is a pipe."""
    options.setdefault("env", {**os.environ, "PYTHONIOENCODING": "utf-8"})
    return subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, **options)


def text_of(live: LiveWebSocket) -> str:
    """Read text messages up to the close."""
    found = ""
    while (message := live.client.receive()) is not None:
        assert isinstance(message, str)
        found += message
    return found


@contextlib.contextmanager
def encrypted_pair() -> Iterator[tuple[ssl.SSLSocket, ssl.SSLSocket]]:
    """Give the client's and the server's end of a connection by TLS 1.3."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(server_file())
    client = client_context(ssl.TLSVersion.TLSv1_3)
    ours, theirs = socket.socketpair()
    serving = in_plain_thread(lambda: server.wrap_socket(theirs, server_side=True))
    with client.wrap_socket(ours, server_hostname="localhost") as ours, serving.result(60) as end:
        yield ours, end


class TestOnClose:
    """`on_close`, once, at any kind of end."""

    @pytest.mark.parametrize(
        ("end", "code"),
        [
            (lambda live: live.client.close(4000), 4000),
            (lambda live: live.client.vanish(), 1006),
            (lambda live: live.websocket.close(4001), 4001),
            (lambda live: live.websocket._finish(1000, ""), 1000),
            (lambda live: live.client.send_raw(b"\xff" * 8), 1002),
        ],
    )
    def test_runs_at_every_end(
        self, open_websocket: Open, end: Callable[[LiveWebSocket], None], code: int
    ) -> None:
        """Whichever side began, whether a thread receives or not."""
        live = open_websocket()
        told: queue.SimpleQueue[Any] = queue.SimpleQueue()
        live.websocket.on_close(lambda *args: told.put((*args, live.websocket.close_code)), 1, 2)
        end(live)
        assert told.get(timeout=10) == (1, 2, code)
        live.websocket.close()
        live.websocket._finish(1000, "")
        with pytest.raises(queue.Empty):
            told.get(timeout=0.05)

    def test_in_order_and_each_whatever_became_of_the_others(
        self, open_websocket: Open, request_log: Any
    ) -> None:
        """An exception is logged."""
        live = open_websocket()
        told: queue.SimpleQueue[Any] = queue.SimpleQueue()

        async def later() -> None:
            await asyncio.sleep(0.01)
            told.put("async")

        live.websocket.on_close(told.put, 1)
        live.websocket.on_close(later)
        live.websocket.on_close(lambda: later())
        live.websocket.on_close(lambda: 1 / 0)
        live.websocket.on_close(told.put, 2)
        live.client.close()
        assert [told.get(timeout=10) for _ in range(4)] == [1, "async", "async", 2]
        (record,) = request_log("dwebsocket")
        assert isinstance(record.exc_info[1], ZeroDivisionError)

    @pytest.mark.parametrize(
        ("is_async", "error"),
        [
            (False, asyncio.CancelledError),
            (False, SystemExit),
            (True, asyncio.CancelledError),
            (True, SystemExit),
        ],
    )
    def test_whatever_one_lets_through(
        self, open_websocket: Open, request_log: Any, is_async: bool, error: type[BaseException]
    ) -> None:
        """The next one is called, and the process does not wait for ever for the rest."""

        def fail() -> None:
            raise error

        async def afail() -> None:
            raise error

        live = open_websocket()
        told: queue.SimpleQueue[Any] = queue.SimpleQueue()
        live.websocket.on_close(afail if is_async else fail)
        live.websocket.on_close(told.put, "next")
        live.client.close()
        assert told.get(timeout=10) == "next"
        eventually(lambda: not close_callbacks.is_pending())
        (record,) = request_log("dwebsocket")
        assert isinstance(record.exc_info[1], error)

    def test_the_wait_for_an_async_one_uses_no_processor(
        self, open_websocket: Open, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The end of the callback wakes the thread, which does not look for it."""
        looks: list[float] = []
        live = open_websocket()
        monkeypatch.setitem(vars(live.websocket._waiter), "sleep", looks.append)
        told: queue.SimpleQueue[Any] = queue.SimpleQueue()

        async def later() -> None:
            await asyncio.sleep(0.05)

        live.websocket.on_close(later)
        live.websocket.on_close(told.put, "next")
        live.client.close()
        assert told.get(timeout=10) == "next"
        assert looks == []

    def test_loop_that_is_closed_under_it(
        self, open_websocket: Open, monkeypatch: pytest.MonkeyPatch, request_log: Any
    ) -> None:
        """It can never end, and the next one is called."""
        monkeypatch.setattr(close_callbacks, "_LOOK_S", 0.01)
        live = open_websocket()
        told: queue.SimpleQueue[Any] = queue.SimpleQueue()
        loop = asyncio.new_event_loop()
        begun = asyncio.Event()

        async def endless() -> None:
            begun.set()
            await asyncio.sleep(3600)

        async def main() -> None:
            live.websocket.on_close(endless)
            live.websocket.on_close(told.put, "next")
            live.client.close()
            await asyncio.wait_for(begun.wait(), 10)

        loop.run_until_complete(main())
        loop.close()
        assert told.get(timeout=10) == "next"
        assert [record.exc_info[0] for record in request_log("dwebsocket")] == [RuntimeError]

    def test_system_that_gives_no_thread(
        self, open_websocket: Open, monkeypatch: pytest.MonkeyPatch, request_log: Any
    ) -> None:
        """They are called all the same. Each end of many says so in one line, if at all."""

        def refuse(name: str, job: Callable[[], None]) -> None:
            raise RuntimeError("can't start new thread")

        monkeypatch.setattr(records, "_BURST", 2.0)
        records._floods.clear()
        told: queue.SimpleQueue[int] = queue.SimpleQueue()
        for number in range(5):
            live = open_websocket()
            live.websocket._spawn = refuse
            live.websocket.on_close(told.put, number)
            live.client.close()
            assert told.get(timeout=10) == number
        found = request_log("dwebsocket")
        assert [record.exc_info for record in found] == [None] * 2
        assert "No thread for the callbacks of on_close" in found[0].getMessage()
        assert "can't start new thread" in found[0].getMessage()

    @pytest.mark.usefixtures("tables")
    def test_callbacks_of_one_end_share_a_connection_to_the_database(
        self, open_websocket: Open, opened: list[Any]
    ) -> None:
        """However old it is; they give it back before an async one, and at the end."""
        live = open_websocket()
        told: queue.SimpleQueue[Any] = queue.SimpleQueue()
        used: list[Any] = []

        def ask() -> None:
            User.objects.count()
            used.append(connections["default"])

        async def aask() -> None:
            for _ in range(5):
                await User.objects.acount()
                await sync_to_async(ask)()
            told.put(used[0].connection)

        for _ in range(5):
            live.websocket.on_close(ask)
        live.websocket.on_close(aask)
        live.client.close()
        assert told.get(timeout=10) is None
        eventually(lambda: not close_callbacks.is_pending())
        assert len(opened) == 2
        assert [each.connection for each in used] == [None] * 10

    def test_one_that_the_system_refuses_does_not_harm_the_next(
        self, open_websocket: Open, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It had no thread that waits for the end."""
        live = open_websocket()
        told: queue.SimpleQueue[Any] = queue.SimpleQueue()

        def refuse(*_: Any) -> None:
            raise RuntimeError("can't start new thread")

        with monkeypatch.context() as full:
            full.setitem(vars(live.websocket._waiter), "at_end", refuse)
            with pytest.raises(RuntimeError, match="can't start new thread"):
                live.websocket.on_close(told.put, "refused")
        live.websocket.on_close(told.put, "next")
        live.client.close()
        assert told.get(timeout=10) == "next"
        eventually(lambda: not close_callbacks.is_pending())

    def test_after_the_end_it_runs_at_once(self, open_websocket: Open) -> None:
        """Also in the third minute after it."""
        live = open_websocket()
        told: queue.SimpleQueue[Any] = queue.SimpleQueue()
        live.websocket.on_close(told.put, 1)
        live.client.close()
        assert told.get(timeout=10) == 1
        live.websocket.on_close(told.put, 2)
        assert told.get(timeout=10) == 2

    def test_an_async_callback_runs_in_the_loop_where_it_was_registered(
        self, open_websocket: Open
    ) -> None:
        """It may use what belongs to that loop."""
        live = open_websocket()

        async def main() -> None:
            over = asyncio.Event()

            async def callback() -> None:
                over.set()

            live.websocket.on_close(callback)
            live.client.close()
            await asyncio.wait_for(over.wait(), 10)

        asyncio.run(main())

    def test_has_the_context_in_which_it_was_registered(self, open_websocket: Open) -> None:
        """The language that middleware has chosen, above all."""
        live = open_websocket()
        told: queue.SimpleQueue[Any] = queue.SimpleQueue()
        with translation.override("de"):
            live.websocket.on_close(lambda: told.put(translation.get_language()))
        live.client.close()
        assert told.get(timeout=10) == "de"

    def test_cares_for_database_connections(
        self, open_websocket: Open, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As around a request."""
        told: queue.SimpleQueue[str] = queue.SimpleQueue()
        monkeypatch.setattr(database, "close_old_connections", lambda: told.put("care"))
        live = open_websocket()
        live.websocket.on_close(told.put, "callback")
        live.client.close()
        assert [told.get(timeout=10) for _ in range(3)] == ["care", "callback", "care"]

    def test_may_be_a_decorator(self, open_websocket: Open) -> None:
        """It gives the function back."""
        live = open_websocket()
        told: queue.SimpleQueue[Any] = queue.SimpleQueue()

        @live.websocket.on_close
        def callback() -> None:
            told.put("told")

        callback()
        live.client.close()
        assert [told.get(timeout=10) for _ in range(2)] == ["told"] * 2

    def test_of_one_that_is_never_opened(self) -> None:
        """The callback runs when it is certain that it will not open."""
        websocket = WebSocket()
        told: queue.SimpleQueue[Any] = queue.SimpleQueue()
        websocket.on_close(told.put, 1)
        websocket._never_open()
        assert told.get(timeout=10) == 1

    def test_registered_before_it_is_open(self, open_websocket: Open) -> None:
        """In a view that decides itself, for instance."""
        early, live = WebSocket(), open_websocket()
        told: queue.SimpleQueue[Any] = queue.SimpleQueue()
        early.on_close(told.put, 1)
        early._attach(live.connection, live.websocket._options, None)  # type: ignore[arg-type]
        live.client.close()
        assert told.get(timeout=10) == 1

    def test_takes_functions_only(self, open_websocket: Open) -> None:
        """The error names the type that it got."""
        with pytest.raises(TypeError, match="not str"):
            open_websocket().websocket.on_close("x")  # type: ignore[arg-type]


class TestStart:
    """`start` and `astart`: beside the view, for its connection."""

    def test_behaves_as_the_view_and_is_told_by_exception(self, visit: Serve) -> None:
        """The view's end waits for it."""
        seen: list[Any] = []

        def helper(prefix: str, *, suffix: str) -> None:
            websocket = seen[0]
            try:
                while True:
                    message = websocket.wait().decode()
                    websocket.send(f"{prefix}{message}{suffix} {translation.get_language()}")
            except ConnectionClosed as end:
                seen.append(end.code)
                raise

        @accept_websocket
        def view(request: Any) -> None:
            seen.append(request.websocket)
            with translation.override("de"):
                helper_ = request.websocket.start(helper, "<", suffix=">")
            assert helper_.is_running
            while not request.websocket.closed:
                time.sleep(0.001)
            seen.append(helper_.join(10))

        made = visit(view).serve()
        made.client.send("hi")
        assert made.client.receive() == "<hi> de"
        made.client.close(4000)
        eventually(lambda: seen[1:] == [4000, True])

    @pytest.mark.parametrize(
        ("error", "code"), [(ValueError("broken"), 1011), (PermissionDenied(), 1008)]
    )
    def test_its_exception_is_the_views(
        self, visit: Serve, request_log: Any, error: Exception, code: int
    ) -> None:
        """Reported once, and the connection is closed with the same code."""

        def helper() -> None:
            raise error

        @accept_websocket
        def view(request: Any) -> None:
            request.websocket.start(helper)
            list(request.websocket)

        made = visit(view).serve()
        assert made.client.closing()[0] == code
        (record,) = request_log("django.request")
        assert record.exc_info[1] is error

    def test_the_end_of_the_view_closes_and_waits_a_moment(self, visit: Serve) -> None:
        """A helper that goes on is left behind."""
        go_on, seen = threading.Event(), []

        def quick(websocket: Any) -> None:
            with contextlib.suppress(ConnectionClosed):
                websocket.wait()
            seen.append("quick")

        @accept_websocket
        def view(request: Any) -> None:
            request.websocket.start(quick, request.websocket)
            request.websocket.start(go_on.wait, 100)
            request.websocket.on_close(seen.append, "closed")

        made = visit(view).serve()
        assert made.client.closing() == (1000, "")
        eventually(lambda: sorted(seen) == ["closed", "quick"])
        go_on.set()

    @pytest.mark.parametrize("kind", ["thread", "task"])
    def test_it_may_send_its_last_words(self, visit: Serve, kind: str) -> None:
        """The end of the view is told at once; the close frame waits for the helper."""
        told = threading.Event()
        seen: list[Any] = []

        def helper(websocket: Any) -> None:
            with pytest.raises(ConnectionClosed) as end:
                websocket.receive()
            told.set()
            seen.extend([end.value.code, end.value.by, websocket.closed, websocket.send("bye")])

        async def ahelper(websocket: Any) -> None:
            with pytest.raises(ConnectionClosed) as end:
                await websocket.areceive()
            told.set()
            sent = await websocket.asend("bye")
            seen.extend([end.value.code, end.value.by, websocket.closed, sent])

        @accept_websocket
        def view(request: Any) -> None:
            websocket = request.websocket
            websocket.start(helper, websocket)
            websocket.on_close(told.wait, 60)

        @accept_websocket
        async def aview(request: Any) -> None:
            await request.websocket.astart(ahelper, request.websocket)

        client = visit(view if kind == "thread" else aview).serve().client
        assert (client.receive(), client.closing()) == ("bye", (1000, ""))
        assert seen == [1000, "local", True, True]

    def test_its_last_words_are_no_more_when_the_client_goes(self, visit: Serve) -> None:
        """It leaves no connection behind; `send` says so."""
        go_on, sent = threading.Event(), []

        def helper(websocket: Any) -> None:
            with contextlib.suppress(ConnectionClosed):
                websocket.receive()
            while websocket.send("still here"):
                time.sleep(0.001)
            sent.append(False)
            go_on.set()

        @accept_websocket
        def view(request: Any) -> None:
            request.websocket.start(helper, request.websocket)

        made = visit(view).serve()
        assert made.client.receive() == "still here"
        made.client.close(4000)
        assert go_on.wait(60)
        assert sent == [False]

    def test_of_an_async_view(self, visit: Serve) -> None:
        """A task; one that does not end is cancelled."""
        seen: list[Any] = []

        async def helper(websocket: Any) -> None:
            try:
                await websocket.asend("hi")
                while not websocket.has_messages():  # noqa: ASYNC110
                    await asyncio.sleep(0.001)
                websocket.read()
            except ConnectionClosed:
                seen.append("told")
                raise

        async def stubborn() -> None:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                seen.append("cancelled")
                raise

        @accept_websocket
        async def view(request: Any) -> None:
            await request.websocket.astart(helper, request.websocket)
            await request.websocket.astart(stubborn)
            async for message in request.websocket:
                seen.append(message)

        made = visit(view).serve()
        assert made.client.receive() == "hi"
        made.client.close()
        eventually(lambda: sorted(seen) == ["cancelled", "told"])

    def test_many_async_views_that_end_leave_the_threads_to_others(
        self, visit: Serve, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """They wait for their helpers in the loop: asyncio's executor has few threads."""
        monkeypatch.setattr(helpers, "_MOMENT_S", 60.0)
        may_end, ending = threading.Event(), []

        @accept_websocket
        async def view(request: Any) -> None:
            request.websocket.start(may_end.wait, 60)
            async for _ in request.websocket:
                pass
            ending.append(request)

        @accept_websocket
        async def other(request: Any) -> None:
            await asyncio.to_thread(request.websocket.send, "done")

        for made in [visit(view).serve() for _ in range(33)]:
            made.client.close()
        eventually(lambda: len(ending) == 33)
        try:
            made = visit(other).serve()
            made.client.sock.settimeout(20)
            assert made.client.receive() == "done"
        finally:
            may_end.set()

    def test_tasks_and_threads_have_one_moment_together(
        self, visit: Serve, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The close frame does not wait for another one."""
        monkeypatch.setattr(helpers, "_MOMENT_S", 0.05)
        wait_until, timeouts = helpers.loop_hub.wait_until, []

        def noting(future: Any, timeout: float | None) -> Any:
            timeouts.append(timeout)
            return wait_until(future, timeout)

        monkeypatch.setattr(helpers.loop_hub, "wait_until", noting)
        may_end = threading.Event()

        @accept_websocket
        async def view(request: Any) -> None:
            request.websocket.start(may_end.wait, 60)
            await request.websocket.astart(asyncio.sleep, 60)

        try:
            assert visit(view).serve().client.closing()[0] == 1000
            assert timeouts[-1] == 0
        finally:
            may_end.set()

    def test_a_task_of_a_handler_whose_end_is_on_a_thread(self, visit: Serve) -> None:
        """It is cancelled, too: `receive` is no coroutine function, but `connect` is."""
        seen: list[str] = []

        async def stubborn() -> None:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                seen.append("cancelled")
                raise

        class Mixed(WebSocketHandler):
            async def connect(self) -> None:
                await self.websocket.aaccept()
                await self.websocket.astart(stubborn)

            def receive(self, message: Any) -> None:
                self.websocket.send(message)

        made = visit(Mixed.as_view()).serve()
        made.client.send("hi")
        assert made.client.receive() == "hi"
        made.client.close()
        eventually(lambda: seen == ["cancelled"])

    def test_a_task_of_a_view_that_is_cancelled_twice(self, visit: Serve) -> None:
        """The wait for the task ends with the second time, and the task with it."""
        seen: list[str] = []
        views: list[asyncio.Task[Any] | None] = []

        async def stubborn() -> None:
            try:
                await asyncio.sleep(60)
            finally:
                seen.append("cancelled")

        @accept_websocket
        async def view(request: Any) -> None:
            views.append(asyncio.current_task())
            await request.websocket.astart(stubborn)
            await request.websocket.asend("began")
            await request.websocket.areceive()

        made = visit(view).serve()
        assert made.client.receive() == "began"
        (task,) = views
        assert task is not None
        loop = task.get_loop()
        loop.call_soon_threadsafe(task.cancel)
        assert made.client.closing()[0] == 1011
        loop.call_soon_threadsafe(task.cancel)
        eventually(lambda: seen == ["cancelled"])

    def test_a_task_has_the_names_of_a_helper(self, visit: Serve) -> None:
        """It is an `asyncio.Task` all the same; `stop` may come from any thread."""
        seen: list[Any] = []

        async def helper() -> None:
            await asyncio.sleep(60)

        @accept_websocket
        async def view(request: Any) -> None:
            task = await request.websocket.astart(helper)
            seen.extend([isinstance(task, asyncio.Task), task.is_running])
            with pytest.raises(UsageError, match="block the event loop"):
                task.join()
            seen.append(await asyncio.to_thread(task.join, 0))
            await asyncio.to_thread(task.stop)
            seen.extend([await asyncio.to_thread(task.join, 60), task.is_running, task.cancelled()])
            await request.websocket.asend_json(task.get_name().endswith("helper"))

        assert visit(view).serve().client.receive() == "true"
        assert seen == [True, True, False, True, False, True]

    def test_the_exception_of_a_task_is_the_views(self, visit: Serve, request_log: Any) -> None:
        """As that of a thread."""

        async def helper() -> None:
            raise ValueError("broken")

        @accept_websocket
        async def view(request: Any) -> None:
            await request.websocket.astart(helper)
            async for _ in request.websocket:
                pass

        assert visit(view).serve().client.closing()[0] == 1011
        assert len(request_log("django.request")) == 1

    @pytest.mark.parametrize(
        ("call", "error"),
        [
            (lambda ws: ws.start("x"), TypeError),
            (lambda ws: ws.start(asyncio.sleep, 1), TypeError),
            (lambda ws: asyncio.run(ws.astart(time.sleep, 1)), TypeError),
            (lambda ws: ws.start(time.sleep, 1), UsageError),
            (lambda ws: ws.every(1, print), UsageError),
            (lambda ws: ws.every(0, print), ValueError),
            (lambda ws: ws.every(-1, print), ValueError),
            (lambda ws: ws.every("1", print), ValueError),
            (lambda ws: ws.every(1, "x"), TypeError),
        ],
    )
    def test_wrong_use(
        self, open_websocket: Open, call: Callable[[WebSocket], Any], error: type[Exception]
    ) -> None:
        """A function of the right kind, while the view runs."""
        with pytest.raises(error):
            call(open_websocket().websocket)

    def test_a_helper_says_what_it_is(self) -> None:
        """Its `repr` has its name and whether it runs."""
        helper = Helper("views.chat read", THREAD)
        assert repr(helper) == "<Helper views.chat read running>"
        assert not helper.join(0)
        helper._end()
        assert repr(helper) == "<Helper views.chat read ended>"
        assert helper.join()

    def test_a_helper_in_a_loop(self) -> None:
        """To wait for it there would block all views."""

        async def main() -> None:
            with pytest.raises(UsageError, match="block the event loop"):
                Helper("views.chat read", THREAD).join()

        asyncio.run(main())


@pytest.mark.usefixtures("tables")
@pytest.mark.parametrize("is_kept", [True, False])
def test_connection_to_the_database_of_every(
    visit: Serve, opened: list[Any], monkeypatch: pytest.MonkeyPatch, is_kept: bool
) -> None:
    """Stays open for the next call, unless that comes after it has been idle for long."""
    monkeypatch.setattr(database, "IDLE_AFTER_S", 60 if is_kept else 0.001)
    used: list[Any] = []

    @accept_websocket
    def view(request: Any) -> None:
        def ask() -> None:
            request.websocket.send(str(User.objects.count()))
            used.append(connections["default"])

        ticker = request.websocket.every(0.02, ask)
        request.websocket.wait()
        ticker.stop()
        request.websocket.wait()

    made = visit(view).serve()
    # A call that is late may come right after the one before it.
    while len(used) < 5 or not (is_kept or len(opened) >= 5):
        made.client.receive()
    made.client.send("stop")
    eventually(lambda: all(each.connection is None for each in used))
    assert len(opened) == 1 if is_kept else len(opened) >= 5
    made.client.close()


class TestEvery:
    """`every`: again and again, until the end."""

    @pytest.mark.parametrize("kind", ["sync", "async"])
    def test_calls_come_again_and_again_beside_messages(self, visit: Serve, kind: str) -> None:
        """Never two at a time."""
        moments: list[float] = []

        def tick(mark: str) -> None:
            moments.append(time.monotonic())
            time.sleep(0.03)

        async def atick(mark: str) -> None:
            moments.append(time.monotonic())
            await asyncio.sleep(0.03)

        @accept_websocket
        def view(request: Any) -> None:
            request.websocket.every(0.1, tick, "x")
            for message in request.websocket:
                request.websocket.send(message)

        @accept_websocket
        async def aview(request: Any) -> None:
            request.websocket.every(0.1, atick, "x")
            async for message in request.websocket:
                await request.websocket.asend(message)

        made = visit(view if kind == "sync" else aview).serve()
        made.client.send("hi")
        assert made.client.receive() == "hi"
        eventually(lambda: len(moments) >= 5)
        made.client.close()
        assert all(after - before >= 0.03 for before, after in pairwise(moments))

    @pytest.mark.parametrize("kind", ["sync", "async"])
    def test_calls_come_by_the_clock_of_a_test(self, visit: Serve, kind: str) -> None:
        """Where no real second passes."""
        ticks: list[int] = []

        async def atick() -> None:
            ticks.append(1)

        @accept_websocket
        def view(request: Any) -> None:
            request.websocket.every(5, lambda: ticks.append(1))
            request.websocket.send("ready")
            request.websocket.wait()

        @accept_websocket
        async def aview(request: Any) -> None:
            request.websocket.every(5, atick)
            await request.websocket.asend("ready")
            await request.websocket.areceive()

        made = visit(view if kind == "sync" else aview).serve()
        assert made.client.receive() == "ready"
        for count in range(1, 4):
            Clock().advance(5)
            eventually(lambda count=count: len(ticks) == count)
        made.client.close()

    @pytest.mark.parametrize(
        ("now", "moment"), [(10.0, 10.5), (10.3, 10.5), (10.5, 11.0), (12.2, 12.5)]
    )
    def test_moments_are_of_one_row(
        self, monkeypatch: pytest.MonkeyPatch, now: float, moment: float
    ) -> None:
        """A call that takes long does not delay later ones: some are left out."""
        monkeypatch.setattr("dwebsocket.telemetry.clock.now", lambda: now)
        assert helpers._next(10.0, 0.5) == moment

    def test_ends_with_the_connection(self, visit: Serve) -> None:
        """While its view is still at work."""
        go_on, closed, ticks = threading.Event(), threading.Event(), []

        @accept_websocket
        def view(request: Any) -> None:
            request.websocket.on_close(closed.set)
            request.websocket.every(0.01, lambda: ticks.append(request.websocket.send("x")))
            go_on.wait(20)

        made = visit(view).serve()
        assert made.client.receive() == "x"
        made.client.close()
        assert closed.wait(10)
        many = len(ticks)
        assert not go_on.wait(0.2)
        go_on.set()
        assert len(ticks) <= many + 1

    def test_system_that_gives_no_thread_for_the_next_call(
        self, visit: Serve, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The view ends with it, and does not go on without."""
        tickers: list[Any] = []

        def refuse(*_: Any) -> Any:
            raise RuntimeError("can't start new thread")

        @accept_websocket
        def view(request: Any) -> None:
            take_threads = functools.partial(
                monkeypatch.setitem, vars(request.websocket._waiter), "call_later", refuse
            )
            tickers.append(request.websocket.every(0.001, take_threads))
            request.websocket.wait_closed()

        assert visit(view).serve().client.closing()[0] == 1011
        assert tickers[0].join(60)

    def test_may_be_stopped(self, visit: Serve) -> None:
        """And then it is over."""
        ticks: list[int] = []

        @accept_websocket
        def view(request: Any) -> None:
            ticker = request.websocket.every(0.01, ticks.append, 1)
            while len(ticks) < 3:
                time.sleep(0.001)
            ticker.stop()
            many = len(ticks)
            request.websocket.wait(0.2)
            # A call that was under way goes on.
            request.websocket.send_json(len(ticks) - many <= 1)

        assert visit(view).serve().client.receive() == "true"

    def test_may_be_waited_for(self, visit: Serve) -> None:
        """As what `start` gives; a call that is under way when it is stopped ends first."""
        begun, go_on = threading.Event(), threading.Event()

        def call() -> None:
            begun.set()
            assert go_on.wait(60)

        @accept_websocket
        def view(request: Any) -> None:
            ticker = request.websocket.every(0.001, call)
            assert begun.wait(60)
            ticker.stop()
            seen = [ticker.is_running, ticker.join(0.01)]
            go_on.set()
            seen += [ticker.join(60), ticker.is_running]
            unused = request.websocket.every(3600, call)
            seen.append(unused.is_running)
            unused.stop()
            request.websocket.send_json([*seen, unused.join(60), unused.is_running])

        expected = "[true, false, true, false, true, true, false]"
        assert visit(view).serve().client.receive() == expected

    def test_in_a_loop_it_may_be_waited_for_on_a_thread(self, visit: Serve) -> None:
        """In the loop itself it would wait for ever."""

        async def call() -> None:
            await asyncio.sleep(0)

        @accept_websocket
        async def view(request: Any) -> None:
            ticker = request.websocket.every(0.001, call)
            seen = [ticker.is_running]
            with pytest.raises(UsageError, match="block the event loop"):
                ticker.join()
            ticker.stop()
            seen += [await asyncio.to_thread(ticker.join, 60), ticker.is_running]
            await request.websocket.asend_json(seen)

        assert visit(view).serve().client.receive() == "[true, true, false]"

    def test_in_a_loop_nothing_is_left_of_those_that_were_stopped(self, visit: Serve) -> None:
        """A page may change again and again what it wants to hear."""
        tickers: list[weakref.ref[Any]] = []

        async def call() -> None:
            raise AssertionError

        @accept_websocket
        async def view(request: Any) -> None:
            for _ in range(10):
                ticker = request.websocket.every(3600, call)
                ticker.stop()
                tickers.append(weakref.ref(ticker))
                await asyncio.gather(ticker, return_exceptions=True)
            del ticker
            # The loop has the last one for a moment.
            await asyncio.sleep(0)
            gc.collect()
            await request.websocket.asend_json(sum(ref() is None for ref in tickers))
            async for _ in request.websocket:
                pass

        assert visit(view).serve().client.receive() == "10"

    @pytest.mark.parametrize("kind", ["sync", "async"])
    def test_its_exception_is_the_views(self, visit: Serve, request_log: Any, kind: str) -> None:
        """Reported once; there is no second call."""

        def tick() -> None:
            raise ValueError("broken")

        async def atick() -> None:
            raise ValueError("broken")

        @accept_websocket
        def view(request: Any) -> None:
            request.websocket.every(0.01, tick)
            list(request.websocket)

        @accept_websocket
        async def aview(request: Any) -> None:
            request.websocket.every(0.01, atick)
            async for _ in request.websocket:
                pass

        assert visit(view if kind == "sync" else aview).serve().client.closing()[0] == 1011
        assert len(request_log("django.request")) == 1


class TestPump:
    """`pump`: sends everything that a source gives."""

    def test_a_process(self, open_websocket: Open) -> None:
        """Its output as text, whole; the process is left to its own end."""
        live = open_websocket()
        with process(PROGRAM.format(count=5000)) as source:
            assert live.websocket.pump(source)
        live.websocket.close()
        assert text_of(live) == "".join(f"grüße {number}\n" for number in range(5000))
        assert source.returncode == 0

    @pytest.mark.parametrize("options", [{"text": True}, {"text": True, "bufsize": 1}])
    def test_a_process_in_text_mode(self, open_websocket: Open, options: dict[str, Any]) -> None:
        """By lines."""
        live = open_websocket()
        with process(PROGRAM.format(count=3), encoding="utf-8", **options) as source:
            assert live.websocket.pump(source)
        assert [live.client.receive() for _ in range(3)] == [f"grüße {n}\n" for n in range(3)]

    def test_a_file_and_what_was_read_ahead_of_it(
        self, open_websocket: Open, tmp_path: Any
    ) -> None:
        """Nothing is lost that lies in its buffer."""
        path = tmp_path / "log"
        path.write_bytes(b"first\nsecond\n" + b"x" * 100_000)
        live = open_websocket()
        with path.open("rb") as file:
            assert file.readline() == b"first\n"
            assert live.websocket.pump(file)
        live.websocket.close()
        assert text_of(live) == "second\n" + "x" * 100_000

    def test_a_file_that_was_written_before(self, open_websocket: Open, tmp_path: Any) -> None:
        """It has read ahead as well."""
        live = open_websocket()
        with (tmp_path / "log").open("w+b") as file:
            file.write(b"first\nsecond\n")
            file.seek(0)
            assert file.readline() == b"first\n"
            assert live.websocket.pump(file)
        assert live.client.receive() == "second\n"

    def test_a_file_that_is_compressed(self, open_websocket: Open, tmp_path: Any) -> None:
        """It has a descriptor, but other bytes than that."""
        live = open_websocket()
        with gzip.open(tmp_path / "log", "wb") as file:
            file.write(b"first\nsecond\n")
        with gzip.open(tmp_path / "log") as file:
            assert live.websocket.pump(file)
        assert [live.client.receive() for _ in range(2)] == ["first\n", "second\n"]

    @pytest.mark.parametrize(
        "source", [iter([b"a", b"b"]), ["a", "b"], io.BytesIO(b"a\nb\n"), io.StringIO("a\nb\n")]
    )
    def test_items(self, open_websocket: Open, source: Any) -> None:
        """One message each."""
        live = open_websocket()
        assert live.websocket.pump(source)
        assert [str(live.client.receive()).strip() for _ in range(2)] == ["a", "b"]

    def test_a_socket_in_binary(self, open_websocket: Open) -> None:
        """With `text_type=str` bytes stay bytes."""
        live = open_websocket(text_type=str)
        ours, theirs = socket.socketpair()
        with ours:
            theirs.sendall(b"text")
            theirs.close()
            assert live.websocket.pump(ours)
        assert live.client.receive() == b"text"

    @pytest.mark.parametrize("timeout", [0.0, 0.05])
    def test_an_encrypted_socket_without_messages(
        self, open_websocket: Open, timeout: float
    ) -> None:
        """Session tickets of TLS are none; the socket's own time limit is not that of the pump."""
        live = open_websocket(text_type=str)
        with encrypted_pair() as (ours, theirs):
            ours.settimeout(timeout)
            found: list[BaseException] = []

            class Source:
                def __getattr__(self, name: str) -> Any:
                    return getattr(ours, name)

                def recv(self, size: int) -> bytes:
                    try:
                        return ours.recv(size)
                    except OSError as error:
                        found.append(error)
                        raise

            is_whole = in_plain_thread(lambda: live.websocket.pump(Source()))  # type: ignore[arg-type]
            eventually(lambda: found)
            theirs.sendall(b"at last")
            assert live.client.receive() == b"at last"
            live.client.vanish()
            assert is_whole.result(60) is False

    def test_a_descriptor(self, open_websocket: Open) -> None:
        """Of a terminal, for instance; it stays its owner's."""
        live = open_websocket()
        read_end, write_end = os.pipe()
        os.write(write_end, "grü".encode()[:-1])
        received = []

        def write_the_rest() -> None:
            received.append(live.client.receive())
            os.write(write_end, b"\xbc\xff")
            os.close(write_end)

        writer = threading.Thread(target=write_the_rest)
        writer.start()
        assert live.websocket.pump(read_end)
        writer.join(60)
        os.close(read_end)
        assert [*received, live.client.receive()] == ["gr", b"\xc3\xbc\xff"]

    @pytest.mark.parametrize("text", [True, False])
    def test_a_client_that_goes_kills_the_process(self, open_websocket: Open, text: bool) -> None:
        """Also one that never writes anything."""
        live = open_websocket()
        source = process("import time; time.sleep(600)", text=text)
        threading.Timer(0.05, live.client.vanish).start()
        assert not live.websocket.pump(source)
        assert source.wait(60) == -9
        source.stdout.close()  # type: ignore[union-attr]

    def test_or_leaves_it_alone(self, open_websocket: Open) -> None:
        """With `kill=False`."""
        live = open_websocket()
        with process("import time; time.sleep(600)") as source:
            threading.Timer(0.05, live.client.vanish).start()
            assert not live.websocket.pump(source, kill=False)
            assert source.poll() is None
            source.kill()

    def test_or_closes_the_source(self, open_websocket: Open) -> None:
        """A generator, a file, a socket."""
        live = open_websocket()
        closed = []

        def items() -> Iterator[str]:
            try:
                while True:
                    yield "x"
            finally:
                closed.append(True)

        threading.Timer(0.05, live.client.vanish).start()
        assert not live.websocket.pump(items())
        assert closed == [True]

    def test_what_gives_the_items_is_closed_in_any_case(self, open_websocket: Open) -> None:
        """Also where the source itself has no `close`, and while the exception is kept."""
        closed = []

        class Wrong:
            def __iter__(self) -> Iterator[Any]:
                try:
                    yield 1
                finally:
                    closed.append(True)

        with pytest.raises(TypeError, match="not int") as kept:
            open_websocket().websocket.pump(Wrong())
        assert closed == [True]
        del kept

    def test_the_connection_keeps_no_source_that_has_ended(self, open_websocket: Open) -> None:
        """A view may pump one after the other for hours."""
        live = open_websocket()
        items = (each for each in "ab")
        kept = weakref.ref(items)
        assert live.websocket.pump(items)
        del items
        assert kept() is None

    def test_a_later_end_does_not_concern_a_source_that_came_to_its_own(
        self, open_websocket: Open
    ) -> None:
        """A process may go on behind its output."""
        live = open_websocket()
        program = "import os, time; os.close(1); time.sleep(600)"
        with process(program, stderr=subprocess.DEVNULL) as source:
            assert live.websocket.pump(source)
            told = threading.Event()
            live.websocket.on_close(told.set)
            live.client.vanish()
            assert told.wait(10)
            assert source.poll() is None
            source.kill()

    def test_waits_for_a_slow_client(self, open_websocket: Open) -> None:
        """The source is not read further than the buffers reach."""
        live = open_websocket(send_buffer=65536)
        taken = 0

        def items() -> Iterator[bytes]:
            nonlocal taken
            for _ in range(160):
                taken += 1
                yield b"x" * 65536

        pumping = threading.Thread(
            target=lambda: [live.websocket.pump(items()), live.websocket.close()]
        )
        pumping.start()
        eventually(lambda: taken > 1)
        seen = -1
        while seen != taken:
            seen = taken
            time.sleep(0.05)
        assert taken < 160
        assert len(text_of(live)) == 160 * 65536
        pumping.join(10)

    @pytest.mark.parametrize("source", ["text", b"bytes", 7.5, None, object()])
    def test_no_such_source(self, open_websocket: Open, source: Any) -> None:
        """The message says what it takes."""
        with pytest.raises(TypeError, match="process, file, socket or iterable"):
            open_websocket().websocket.pump(source)

    def test_a_process_without_a_pipe(self, open_websocket: Open) -> None:
        """The message says how to start it."""
        with subprocess.Popen(["true"]) as source, pytest.raises(ValueError, match="stdout=PIPE"):
            open_websocket().websocket.pump(source)

    def test_an_item_that_is_no_message(self, open_websocket: Open) -> None:
        """As for `send`."""
        with pytest.raises(TypeError, match="not int"):
            open_websocket().websocket.pump([1, 2])

    def test_in_an_event_loop(self, open_websocket: Open) -> None:
        """It would block it."""
        live = open_websocket()

        async def main() -> None:
            live.websocket.pump([])

        with pytest.raises(UsageError, match="to_thread"):
            asyncio.run(main())
