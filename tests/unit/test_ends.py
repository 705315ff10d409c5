"""The end of a connection, as each thread, task and greenlet learns of it."""

from __future__ import annotations

import _thread
import asyncio
import select
import sys
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from multiprocessing.pool import ThreadPool
from typing import TYPE_CHECKING, Any

import pytest
from django.core.exceptions import PermissionDenied
from django.core.handlers.wsgi import WSGIHandler
from django.http import HttpResponse
from django.test import RequestFactory
from django.urls import path
from threads import in_plain_thread

from dwebsocket import ConnectionClosed, accept_websocket
from dwebsocket.api.waiting.waiter import Waiter
from dwebsocket.runners.view import RunningView
from dwebsocket.testing import WebSocketClient
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable

    from peer import LiveWebSocket

    from dwebsocket import WebSocket

    Open = Callable[..., LiveWebSocket]
    Own = Callable[[WebSocket], None]


# More bytes than the buffers of a socket pair take.
CHUNK, CHUNKS = b"x" * 65536, 160


def serve_a_page() -> None:
    """Let Django's handler answer a request on this thread."""
    response = WSGIHandler()(RequestFactory().get("/").environ, lambda *_: None)
    assert response.status_code == 200
    response.close()


def on_thread_of_the_system(call: Callable[[], object]) -> None:
    """Call on a thread that Python's `threading` has not started, as those of servers in C."""
    future: Future[object] = Future()
    _thread.start_new_thread(lambda: future.set_result(call()), ())
    future.result(60)


def in_executor(call: Callable[[], object]) -> None:
    """Call on a worker of Python's executor: of gunicorn's gthread, of Celery's threads."""
    with ThreadPoolExecutor(1) as executor:
        executor.submit(call).result(60)


def in_pool(call: Callable[[], object]) -> None:
    """Call on a worker of the older pool of threads."""
    with ThreadPool(1) as pool:
        pool.apply_async(call).get(60)


OTHERS_THREADS: dict[str, Callable[[Callable[[], object]], object]] = {
    "serves the request": lambda push: in_plain_thread(serve_a_page).result(60),
    "is of the system": on_thread_of_the_system,
    "is an executor's": in_executor,
    "is a pool's": in_pool,
    "is the main one": lambda push: push(),
}


def ended(live: LiveWebSocket, messages: int = 0) -> None:
    """Let the engine see that the client has gone, behind so many messages."""
    eventually(lambda: live.connection.waiting() == (messages, True))


class TestEachCallerIsToldOnce:
    """By None, and then by an exception."""

    def test_the_view_and_a_helper_thread(
        self, open_websocket: Open, own: Own, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The report to one caller changes nothing for the other."""
        live = open_websocket()
        own(live.websocket)
        live.client.close()
        assert live.websocket.wait() is None
        monkeypatch.setattr("dwebsocket.api.waiting.caller.GRACE_S", 0.0)

        def read() -> list[Any]:
            told = [live.websocket.has_messages(), live.websocket.wait()]
            with pytest.raises(ConnectionClosed):
                live.websocket.wait()
            return told

        assert in_plain_thread(read).result(10) == [True, None]
        with pytest.raises(EOFError):
            live.websocket.wait()

    def test_a_thread_that_sleeps_is_told_too(self, open_websocket: Open) -> None:
        """Every waiting call returns."""
        live = open_websocket()
        waiting = [in_plain_thread(live.websocket.wait) for _ in range(3)]
        eventually(lambda: live.connection.is_awaited())
        live.client.close()
        assert [future.result(10) for future in waiting] == [None] * 3

    def test_two_tasks(self, open_websocket: Open) -> None:
        """`read()` never blocks their loop."""
        live = open_websocket()
        live.client.close()
        ended(live)

        async def told() -> list[Any]:
            return [live.websocket.has_messages(), live.websocket.read(7)]

        async def main() -> list[list[Any]]:
            return [await asyncio.create_task(told()) for _ in range(2)]

        assert asyncio.run(main()) == [[True, None]] * 2

    def test_receiving_of_a_helper_leaves_the_views_sends_alone(
        self, open_websocket: Open, own: Own, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A push loop ends although another thread goes on reading."""
        live = open_websocket()
        own(live.websocket)
        live.client.close()
        ended(live)
        assert live.websocket.send("x") is False
        assert in_plain_thread(live.websocket.wait).result(10) is None
        monkeypatch.setattr("dwebsocket.api.waiting.caller.GRACE_S", 0.0)
        with pytest.raises(ConnectionClosed):
            live.websocket.send("x")

    @pytest.mark.parametrize(
        "call",
        [
            lambda ws: ws.wait(),
            lambda ws: ws.read(),
            lambda ws: ws.has_messages() and ws.read(),
            lambda ws: ws.receive(),
            lambda ws: asyncio.run(ws.areceive()),
        ],
    )
    def test_a_loop_that_swallows_everything_is_slowed_down(
        self, open_websocket: Open, call: Callable[[WebSocket], Any]
    ) -> None:
        """It makes a handful of calls where it would make a hundred thousand."""
        live = open_websocket()
        live.client.close()
        ended(live)
        calls = 0

        def loop() -> None:
            nonlocal calls
            deadline = time.monotonic() + 1.5
            while time.monotonic() < deadline:
                calls += 1
                try:
                    call(live.websocket)
                except Exception:
                    continue

        in_plain_thread(loop).result(20)
        assert calls < 30

    def test_so_is_one_that_only_sends(
        self, open_websocket: Open, own: Own, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Of the view itself, or in a thread of this connection only."""
        monkeypatch.setattr("dwebsocket.api.waiting.caller._SENDS_FREELY_S", 0.0)
        monkeypatch.setattr("dwebsocket.api.waiting.caller._SENDS_RARELY_S", 0.01)
        live = open_websocket()

        def loop() -> int:
            calls, deadline = 0, time.monotonic() + 1.5
            while time.monotonic() < deadline:
                calls += 1
                try:
                    live.websocket.send("x")
                except ConnectionClosed:
                    continue
            return calls

        def push() -> int:
            live.websocket.send("before")
            live.client.close()
            ended(live)
            return loop()

        assert in_plain_thread(push).result(20) < 100
        own(live.websocket)
        assert loop() < 100

    def test_the_rest_of_something_is_passed_on_at_once(
        self, open_websocket: Open, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A thread that does not look at the result of `send` only lets others run."""
        pauses: list[float] = []
        monkeypatch.setattr(Waiter, "sleep", lambda _, s: pauses.append(s))
        monkeypatch.setattr("dwebsocket.api.waiting.caller._SENDS_FREELY_S", 1000.0)
        live = open_websocket()

        def push() -> None:
            live.websocket.send("before")
            live.client.close()
            ended(live)
            for _ in range(1000):
                live.websocket.send("x")

        in_plain_thread(push).result(20)
        assert pauses == [0.0] * 999

    def test_a_broadcast_is_not(
        self, open_websocket: Open, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Its other clients would wait."""
        gone, other = open_websocket(), open_websocket()
        gone.client.close()
        ended(gone)

        pauses: list[float] = []
        monkeypatch.setattr(Waiter, "sleep", lambda _, s: pauses.append(s))

        def broadcast() -> None:
            for _ in range(100):
                other.websocket.send("x")
                assert gone.websocket.send("x") is False

        in_plain_thread(broadcast).result(20)
        assert pauses == []

    def test_async_iteration_again_and_again_lets_the_loop_run(self, open_websocket: Open) -> None:
        """Each time it just stops, a little later."""
        live = open_websocket()
        live.client.close()
        ended(live)
        turns = 0

        async def iterate() -> None:
            nonlocal turns
            while True:
                async for _ in live.websocket:
                    pass
                turns += 1

        async def main() -> None:
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(iterate(), 1.5)

        asyncio.run(main())
        assert 2 < turns < 30


class TestIsClosed:
    """`is_closed()`, for loops; `closed` is exact."""

    @pytest.mark.parametrize("answers", [True, False])
    @pytest.mark.parametrize("is_own", [True, False])
    @pytest.mark.parametrize("call", ["wait", "read", "poll"])
    def test_hides_no_message_that_came_before_the_end(
        self,
        open_websocket: Open,
        own: Own,
        monkeypatch: pytest.MonkeyPatch,
        call: str,
        is_own: bool,
        answers: bool,
    ) -> None:
        """Also when the end was there before the loop began."""
        monkeypatch.setattr("dwebsocket.api.waiting.caller.GRACE_S", 60.0)
        live = open_websocket()
        if is_own:
            own(live.websocket)
        for number in range(3):
            live.client.send(str(number))
        live.client.close()
        ended(live, 3)

        def loop() -> list[Any]:
            found = []
            while not live.websocket.is_closed():
                if call == "poll" and not live.websocket.has_messages():
                    continue
                found.append(live.websocket.wait() if call == "wait" else live.websocket.read())
                if answers:
                    live.websocket.send("answer")
            return found

        found = loop() if is_own else in_plain_thread(loop).result(10)
        assert [message for message in found if message is not None] == [b"0", b"1", b"2"]

    def test_gives_a_thread_that_receives_the_none_of_the_end(self, open_websocket: Open) -> None:
        """Projects clean up on it."""
        live = open_websocket()

        def loop() -> list[Any]:
            found = []
            while not live.websocket.is_closed():
                found.append(live.websocket.wait())
            return found

        future = in_plain_thread(loop)
        live.client.send("a")
        eventually(lambda: live.connection.is_awaited())
        live.client.close()
        assert future.result(10) == [b"a", None]

    def test_is_the_end_for_a_caller_that_does_not_receive(
        self, open_websocket: Open, own: Own
    ) -> None:
        """A loop that sleeps, or that asks from elsewhere."""
        live = open_websocket()
        own(live.websocket)
        assert not live.websocket.is_closed()
        live.client.close()
        ended(live)
        assert live.websocket.is_closed()
        assert in_plain_thread(live.websocket.is_closed).result(10)

    @pytest.mark.parametrize("is_own", [True, False])
    def test_a_loop_that_never_reads_ends_behind_unread_messages(
        self, open_websocket: Open, own: Own, is_own: bool
    ) -> None:
        """It would never end otherwise."""
        live = open_websocket()
        if is_own:
            own(live.websocket)
        live.client.send("unread")
        live.client.close()
        ended(live, 1)

        def loop() -> None:
            while not live.websocket.is_closed():
                time.sleep(0.01)

        if is_own:
            loop()
        else:
            in_plain_thread(loop).result(10)

    def test_is_true_for_a_thread_whose_send_was_refused(self, open_websocket: Open) -> None:
        """Heartbeats end by it, whatever messages are unread."""
        live = open_websocket()
        live.client.send("unread")
        live.client.close()
        ended(live, 1)

        def beat() -> list[bool]:
            return [live.websocket.send(""), live.websocket.is_closed()]

        assert in_plain_thread(beat).result(10) == [False, True]

    def test_is_true_for_a_thread_that_has_closed(self, open_websocket: Open, own: Own) -> None:
        """Its loop is over, whatever waits to be read."""
        live = open_websocket()
        own(live.websocket)
        live.client.send("read")
        live.client.send("unread")
        arrived = 0
        while not live.websocket.is_closed():
            assert live.websocket.wait() == b"read"
            arrived += 1
            live.websocket.close()
        assert arrived == 1

    def test_closed_is_exact(self, open_websocket: Open, own: Own) -> None:
        """Messages that wait to be read do not matter."""
        live = open_websocket()
        own(live.websocket)
        live.client.send("unread")
        live.client.close()
        ended(live, 1)
        assert live.websocket.closed


class TestSlowClients:
    """The senders that wait for them."""

    def drain(self, live: LiveWebSocket) -> bytes:
        """Read all messages, slowly at first."""
        received = b""
        while (message := live.client.receive()) is not None:
            received += message.encode() if isinstance(message, str) else message
        return received

    def test_a_thread_that_pumps_into_one_connection_waits(self, open_websocket: Open) -> None:
        """All of it arrives, at the client's pace."""
        live = open_websocket(send_buffer=256 * 1024)

        def pump() -> list[bool]:
            sent = [live.websocket.send(CHUNK) for _ in range(CHUNKS)]
            live.websocket.close()
            return sent

        pumping = in_plain_thread(pump)
        assert self.drain(live) == CHUNK * CHUNKS
        assert pumping.result(10) == [True] * CHUNKS

    def test_so_does_one_that_inherits_from_another_thread(self, open_websocket: Open) -> None:
        """Context variables, that is, as without the GIL: what others have sent is not its own."""
        live, other = open_websocket(send_buffer=256 * 1024), open_websocket()
        other.websocket.send("x")

        def pump() -> None:
            for _ in range(CHUNKS):
                live.websocket.send(CHUNK)
            live.websocket.close()

        pumping = in_plain_thread(partial(copy_context().run, pump))
        assert self.drain(live) == CHUNK * CHUNKS
        pumping.result(10)

    def test_it_closes_a_client_that_takes_nothing(self, open_websocket: Open) -> None:
        """After `WEBSOCKET_SEND_TIMEOUT`, with 1013; it gets False and no exception."""
        live = open_websocket(send_buffer=65536, send_timeout=0.2)

        def pump() -> None:
            while live.websocket.send(CHUNK):
                pass

        in_plain_thread(pump).result(20)
        assert live.websocket.close_code == 1013

    def test_a_thread_that_sends_to_many_does_not_wait(self, open_websocket: Open) -> None:
        """One client must not hold up the others."""
        slow = open_websocket(send_buffer=65536, send_timeout=600)
        other = open_websocket()

        def broadcast() -> None:
            while slow.websocket.send(CHUNK):
                other.websocket.send("x")

        in_plain_thread(broadcast).result(60)
        assert slow.websocket.close_code == 1013
        assert not other.websocket.closed

    def test_nor_does_the_view_of_another_connection(self, open_websocket: Open, own: Own) -> None:
        """As ever."""
        slow, mine = open_websocket(send_buffer=65536), open_websocket()
        own(mine.websocket)
        while slow.websocket.send(CHUNK):
            pass
        assert slow.websocket.close_code == 1013

    @pytest.mark.parametrize("thread", sorted(OTHERS_THREADS))
    def test_nor_does_a_thread_that_works_for_many(
        self, thread: str, open_websocket: Open, override: Callable[..., None]
    ) -> None:
        """Though it has sent to this connection alone so far: its next request may be another's."""
        live = open_websocket(send_buffer=65536, send_timeout=600)

        def push(*_: object) -> HttpResponse:
            while live.websocket.send(CHUNK):
                pass
            return HttpResponse()

        override(ROOT_URLCONF=(path("", push),))
        OTHERS_THREADS[thread](push)
        assert live.websocket.close_code == 1013

    def test_a_thread_may_pump_into_one_after_the_other(self, open_websocket: Open) -> None:
        """An ended connection does not count among those that it sends to."""

        def pump(live: LiveWebSocket) -> None:
            for _ in range(CHUNKS):
                assert live.websocket.send(CHUNK)
            live.websocket.close()

        first, second = (open_websocket(send_buffer=256 * 1024) for _ in range(2))
        pumping = in_plain_thread(lambda: [pump(first), pump(second)])
        for live in (first, second):
            assert self.drain(live) == CHUNK * CHUNKS
        pumping.result(10)


class TestSelecting:
    """`fileno()`, for code that waits for several things."""

    def readable(self, websocket: WebSocket) -> bool:
        """Whether `select` finds it."""
        return bool(select.select([websocket], [], [], 0)[0])

    def test_is_readable_while_a_message_or_the_unread_end_waits(
        self, open_websocket: Open
    ) -> None:
        """And no longer."""
        live = open_websocket()
        assert not self.readable(live.websocket)
        live.client.send("a")
        live.client.send("b")
        assert select.select([live.websocket], [], [], 10)[0] == [live.websocket]
        assert live.websocket.wait() == b"a"
        eventually(lambda: live.connection.waiting() == (1, False))
        assert self.readable(live.websocket)
        assert live.websocket.wait() == b"b"
        assert not self.readable(live.websocket)
        live.client.close()
        assert select.select([live.websocket], [], [], 10)[0] == [live.websocket]
        assert live.websocket.read() is None
        assert not self.readable(live.websocket)

    def test_stays_readable_for_a_thread_that_was_not_told(self, open_websocket: Open) -> None:
        """A thread that receives the end does not take it away from others."""
        live = open_websocket()
        live.websocket.fileno()
        live.client.close()
        ended(live)
        assert in_plain_thread(live.websocket.wait).result(10) is None
        assert self.readable(live.websocket)
        assert live.websocket.read() is None
        assert not self.readable(live.websocket)

    def test_is_the_same_descriptor_until_the_view_has_ended(self, open_websocket: Open) -> None:
        """Then it is -1, as of a closed socket."""
        live = open_websocket()
        descriptor = live.websocket.fileno()
        assert live.websocket.fileno() == descriptor
        live.websocket._finish(1000, "")
        assert live.websocket.fileno() == -1

    def test_in_an_event_loop(self, open_websocket: Open) -> None:
        """`loop.add_reader`."""
        live = open_websocket()

        async def main() -> list[Any]:
            found: list[Any] = []
            over = asyncio.Event()

            def on_readable() -> None:
                found.append(live.websocket.read())
                if found[-1] is None:
                    asyncio.get_running_loop().remove_reader(live.websocket)
                    over.set()

            asyncio.get_running_loop().add_reader(live.websocket, on_readable)
            live.client.send("a")
            live.client.send("b")
            live.client.close()
            await asyncio.wait_for(over.wait(), 10)
            return found

        assert asyncio.run(main()) == [b"a", b"b", None]


def test_a_polling_loop_leaves_the_processor_to_others(open_websocket: Open) -> None:
    """Calls that find nothing sleep when they come one right after the other."""
    live = open_websocket()
    stop = threading.Event()

    def poll() -> tuple[float, float]:
        begin, begin_cpu = time.monotonic(), time.thread_time()
        while not stop.is_set():
            live.websocket.has_messages()
            live.websocket.read()
        return time.thread_time() - begin_cpu, time.monotonic() - begin

    polling = in_plain_thread(poll)
    assert not stop.wait(1.0)
    stop.set()
    cpu, elapsed = polling.result(10)
    assert cpu < 0.5 * elapsed


def test_a_polling_loop_gets_its_message_at_once(open_websocket: Open) -> None:
    """It sleeps for a message, not just for a time."""
    live = open_websocket()

    def poll() -> Any:
        while (message := live.websocket.read()) is None:
            pass
        return message

    polling = in_plain_thread(poll)
    live.client.send("here")
    assert polling.result(10) == b"here"


def test_handle_may_be_set_to_none(open_websocket: Open) -> None:
    """In the original it was None, until a project set a function."""
    live = open_websocket()
    live.websocket.handle = None  # type: ignore[method-assign,assignment]
    live.client.send("a")
    assert live.websocket.wait() == b"a"


class SeenAtOnce:
    """A connection whose view sees its end, and is over, before the one that closes it goes on."""

    def __init__(self, websocket: WebSocket) -> None:
        self._websocket, self._connection = websocket, websocket._engine
        self.unwanted: list[Any] = []

    def close(self, code: int, reason: str) -> bool:
        """Close it, and note what its view would report."""
        began = self._connection.close(code, reason)
        self.unwanted.append(self._websocket._unwanted_end())
        return began

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)


@pytest.mark.parametrize(
    "close",
    [
        lambda websocket: websocket.close(4000),
        lambda websocket: RunningView(websocket, RequestFactory().get("/")).failed(OSError("no")),
    ],
    ids=["close", "failure beside the view"],
)
def test_wanted_end_is_reported_by_nobody(
    open_websocket: Open, close: Callable[[WebSocket], object]
) -> None:
    """However soon another thread sees it: it is neither a mistake of ours nor a sign-out."""
    websocket = open_websocket().websocket
    seen = SeenAtOnce(websocket)
    websocket._connection = seen  # type: ignore[assignment]
    close(websocket)
    assert seen.unwanted == [None]
    websocket._connection = seen._connection


def test_unwanted_end_is_reported_although_the_view_closes_then(open_websocket: Open) -> None:
    """Most views do so in a `finally`."""
    live = open_websocket(max_message_size=1)
    live.client.send("too long")
    assert live.websocket.wait_closed(60)
    live.websocket.close()
    unwanted = live.websocket._unwanted_end()
    assert unwanted is not None
    assert unwanted[1][0] == 1009


def test_code_that_cannot_be_sent_is_no_wanted_end(open_websocket: Open) -> None:
    """The connection goes on."""
    live = open_websocket()
    with pytest.raises(ValueError, match="1005"):
        live.websocket.close(1005)
    live.client.vanish()
    assert live.websocket.wait_closed(60)
    assert live.websocket._unwanted_end() is not None


@accept_websocket
async def grouped(request: Any) -> None:
    async with asyncio.TaskGroup() as tasks:  # type: ignore[attr-defined,unused-ignore]
        for _ in range(2):
            tasks.create_task(request.websocket.areceive())


@accept_websocket
async def failing(request: Any) -> None:
    try:
        await request.websocket.areceive()
    except ConnectionClosed as end:
        raise ExceptionGroup("two", [end, ValueError("own")]) from None  # type: ignore[name-defined,unused-ignore]  # noqa: F821


@accept_websocket
async def parsing(request: Any) -> None:
    async with asyncio.TaskGroup() as tasks:  # type: ignore[attr-defined,unused-ignore]
        tasks.create_task(request.websocket.areceive_json())
        tasks.create_task(asyncio.sleep(60))


@accept_websocket(send_timeout=0.01, ping_interval=None)
async def pushing(request: Any) -> None:
    async def push() -> None:
        while True:
            await request.websocket.asend(CHUNK)

    async with asyncio.TaskGroup() as tasks:  # type: ignore[attr-defined,unused-ignore]
        for _ in range(2):
            tasks.create_task(push())


@accept_websocket
async def guarding(request: Any) -> None:
    async def guard() -> None:
        raise PermissionDenied

    async with asyncio.TaskGroup() as tasks:  # type: ignore[attr-defined,unused-ignore]
        tasks.create_task(guard())


urlpatterns = [
    path("grouped/", grouped),
    path("failing/", failing),
    path("parsing/", parsing),
    path("pushing/", pushing),
    path("guarding/", guarding),
]


@pytest.mark.skipif(sys.version_info < (3, 11), reason="there are no groups of exceptions")
@pytest.mark.parametrize("name", ["grouped", "failing"])
def test_the_end_of_a_task_group_is_quiet_unless_another_exception_is_in_it(
    name: str, override: Callable[..., None], request_log: Any
) -> None:
    """A page that is left is no error."""
    override(ROOT_URLCONF=__name__)
    with WebSocketClient(raise_request_exception=False).websocket(f"/{name}/") as page:
        page.close()
    errors = [each for each in request_log() if each.levelname == "ERROR"]
    assert bool(errors) is (name == "failing")


@pytest.mark.skipif(sys.version_info < (3, 11), reason="there are no groups of exceptions")
@pytest.mark.parametrize(
    ("name", "code"), [("parsing", 1007), ("pushing", 1013), ("guarding", 1008)]
)
def test_an_exception_of_a_task_group_counts_as_that_of_the_view(
    name: str, code: int, override: Callable[..., None], request_log: Any
) -> None:
    """A client that sends no JSON, or takes nothing, is no error of the site."""
    override(ROOT_URLCONF=__name__)
    with WebSocketClient().websocket(f"/{name}/") as page:
        if name == "parsing":
            page.send("{")
        assert page.wait_closed(60) == code
    assert [each for each in request_log() if each.levelname == "ERROR"] == []
