"""`ping()`, `latency` and `wait_closed()`, with their async twins."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

import pytest
from echoing import echo
from peer import LiveWebSocket
from threads import in_plain_thread
from websockets.frames import Frame, Opcode

from dwebsocket import (
    ConnectionClosed,
    PingTimeout,
    UsageError,
    WebSocket,
    WebSocketError,
    _core,
    accept_websocket,
)
from dwebsocket.api.waiting import pings, steps
from dwebsocket.api.waiting.waiter import THREAD
from support.waiting import eventually

if TYPE_CHECKING:
    from visit import Serve

Open = Callable[..., LiveWebSocket]

both = pytest.mark.parametrize("as_async", [False, True], ids=["sync", "async"])


def ping(live: LiveWebSocket, timeout: float | None = 60, *, as_async: bool) -> Future[float]:
    """Ping in a thread, or in a loop of its own in one."""
    if as_async:
        return in_plain_thread(lambda: asyncio.run(live.websocket.aping(timeout)))
    return in_plain_thread(lambda: live.websocket.ping(timeout))


def wait_closed(live: LiveWebSocket, timeout: float | None, *, as_async: bool) -> Future[bool]:
    """Wait for the end in a thread, or in a loop of its own in one."""
    if as_async:
        return in_plain_thread(lambda: asyncio.run(live.websocket.await_closed(timeout)))
    return in_plain_thread(lambda: live.websocket.wait_closed(timeout))


ENDS: dict[str, Callable[[LiveWebSocket], None]] = {
    "closes": lambda live: live.client.close(4000, "enough"),
    "vanishes": lambda live: live.client.vanish(),
    "is closed": lambda live: live.websocket.close(4001),
}


def read_ping(live: LiveWebSocket) -> bytes:
    """Read a ping off the wire and give its payload, without an answer."""
    head = live.client.sock.recv(2, socket.MSG_WAITALL)
    assert head[0] == 0x89, head
    return live.client.sock.recv(head[1], socket.MSG_WAITALL) if head[1] else b""


def pong(live: LiveWebSocket, payload: bytes) -> None:
    """Send a pong."""
    live.client.send_raw(Frame(Opcode.PONG, payload).serialize(mask=True))


@both
class TestPing:
    """A ping of the view's own."""

    def test_client_answers(self, open_websocket: Open, as_async: bool) -> None:
        """As every client does; the call gives the seconds that it took."""
        live = open_websocket()
        before = time.monotonic()
        took = ping(live, as_async=as_async)
        frame = live.client.frame()
        assert frame is not None
        assert (frame.opcode, len(frame.data)) == (Opcode.PING, 8)
        assert 0 < took.result(10) <= time.monotonic() - before
        assert live.websocket.latency == took.result()

    def test_each_has_a_payload_of_its_own(self, open_websocket: Open, as_async: bool) -> None:
        """A pong that answers something else is no answer."""
        live = open_websocket()
        first = ping(live, as_async=as_async)
        one = read_ping(live)
        pong(live, b"")
        pong(live, b"anything")
        pong(live, one[:-1] + bytes([one[-1] ^ 0x80]))
        live.client.send("behind them")
        assert live.websocket.receive(10) == "behind them"
        assert not first.done()
        second = ping(live, as_async=as_async)
        two = read_ping(live)
        assert one != two
        pong(live, one)
        first.result(10)
        assert not second.done()
        pong(live, two)
        second.result(10)

    def test_answer_to_a_later_one_answers_the_earlier(
        self, open_websocket: Open, as_async: bool
    ) -> None:
        """RFC 6455 section 5.5.3: a client that is behind answers the last one only."""
        live = open_websocket()
        took, payloads = [], []
        for _ in range(3):
            took.append(ping(live, as_async=as_async))
            payloads.append(read_ping(live))
        pong(live, payloads[-1])
        times = [each.result(10) for each in took]
        assert times == sorted(times, reverse=True)

    def test_client_that_does_not_answer(self, open_websocket: Open, as_async: bool) -> None:
        """`PingTimeout`, a `TimeoutError`; the connection goes on."""
        live = open_websocket()
        with pytest.raises(PingTimeout, match=r"^the client answered no ping within 0.05 s$") as e:
            ping(live, 0.05, as_async=as_async).result(10)
        assert isinstance(e.value, TimeoutError)
        assert isinstance(e.value, WebSocketError)
        assert live.websocket.latency is None
        late = read_ping(live)
        pong(live, late)
        assert live.websocket.send("still here") is True
        took = ping(live, as_async=as_async)
        assert live.client.receive() == "still here"
        assert live.client.frame().opcode is Opcode.PING  # type: ignore[union-attr]
        took.result(10)

    @pytest.mark.parametrize("how", ENDS)
    def test_end_while_it_waits(self, open_websocket: Open, as_async: bool, how: str) -> None:
        """`ConnectionClosed`, at once."""
        live = open_websocket()
        took = ping(live, None, as_async=as_async)
        read_ping(live)
        ENDS[how](live)
        with pytest.raises(ConnectionClosed) as caught:
            took.result(10)
        assert caught.value.code == {"closes": 4000, "vanishes": 1006, "is closed": 4001}[how]

    def test_end_before_it(self, open_websocket: Open, as_async: bool) -> None:
        """The same."""
        live = open_websocket()
        live.websocket.close(4000)
        with pytest.raises(ConnectionClosed):
            ping(live, None, as_async=as_async).result(10)

    def test_client_that_reads_nothing(self, open_websocket: Open, as_async: bool) -> None:
        """The ping finds no room, and that is no reason to close the client."""
        live = open_websocket(send_buffer=1000, send_timeout=0.001)
        pings = 0
        while True:
            # Small ones: behind one that waits for room smaller ones wait, too, though they fit.
            while live.connection.try_send(b"x") is True:
                pass
            if live.connection.begin_ping() is None:
                break
            # The system has made some more room meanwhile.
            pings += 1
        with pytest.raises(PingTimeout):
            ping(live, 0.2, as_async=as_async).result(10)
        assert live.websocket.closed is False
        took = ping(live, as_async=as_async)
        while pings >= 0:
            pings -= live.client.frame().opcode is Opcode.PING  # type: ignore[union-attr]
        took.result(10)

    def test_it_sleeps_until_there_is_room(self, open_websocket: Open, as_async: bool) -> None:
        """It does not try again and again."""
        live = open_websocket(send_buffer=1000, send_timeout=0.001)
        while live.connection.try_send(b"x" * 1000) is True:
            pass
        tries = 0

        class Counting:
            def __getattr__(self, name: str) -> Any:
                return getattr(live.connection, name)

            def begin_ping(self) -> Any:
                nonlocal tries
                tries += 1
                return live.connection.begin_ping()

        counting: Any = Counting()

        def call() -> float:
            sent = pings.ping(counting, THREAD, 0.5)
            return asyncio.run(steps.arun(sent)) if as_async else steps.run(sent)

        with pytest.raises(PingTimeout):
            call()
        # The system may have made some more room meanwhile.
        assert tries <= 3

    @pytest.mark.parametrize("timeout", [-1, float("nan")])
    def test_time_that_cannot_be(
        self, open_websocket: Open, as_async: bool, timeout: float
    ) -> None:
        """As for `receive`."""
        with pytest.raises(ValueError, match="timeout must be None, 0 or a number of seconds"):
            ping(open_websocket(), timeout, as_async=as_async).result(10)


class TestPingElsewhere:
    """Where it cannot be, and beside other calls."""

    def test_would_block_an_event_loop(self, open_websocket: Open) -> None:
        """The message names the twin."""
        live = open_websocket()

        async def main() -> None:
            with pytest.raises(UsageError, match=r"use `await websocket\.aping\(\)`"):
                live.websocket.ping()

        asyncio.run(main())

    def test_before_the_connection_is_open(self) -> None:
        """There is no client to answer."""
        assert WebSocket().latency is None
        with pytest.raises(UsageError, match="not open yet"):
            WebSocket().ping()

    def test_connection_that_was_never_opened(self) -> None:
        """It is closed."""
        websocket = WebSocket()
        websocket._never_open()
        assert (websocket.latency, websocket.wait_closed()) == (None, True)
        with pytest.raises(ConnectionClosed):
            websocket.ping()
        assert asyncio.run(websocket.await_closed()) is True

    def test_cancelled(self, open_websocket: Open) -> None:
        """Nothing is left of it."""
        live = open_websocket()

        async def main() -> float:
            first = asyncio.create_task(live.websocket.aping())
            await asyncio.to_thread(read_ping, live)
            first.cancel()
            await asyncio.wait({first})
            second = asyncio.create_task(live.websocket.aping())
            pong(live, await asyncio.to_thread(read_ping, live))
            return await second

        assert asyncio.run(main()) > 0

    def test_beside_a_thread_that_receives(self, open_websocket: Open) -> None:
        """It takes no message, and none is lost."""
        live = open_websocket()
        received = in_plain_thread(live.websocket.receive)
        took = ping(live, as_async=False)
        payload = read_ping(live)
        live.client.send("hello")
        pong(live, payload)
        assert took.result(10) > 0
        assert received.result(10) == "hello"

    def test_answer_waits_for_no_message_that_was_held_back(
        self, open_websocket: Open, own: Callable[[WebSocket], None]
    ) -> None:
        """Messages that the view has sent before go out before it sleeps."""
        live = open_websocket()
        own(live.websocket)
        live.client.send("one")
        live.client.send("two")
        eventually(lambda: live.websocket.count_messages() == 2)
        assert live.websocket.wait() == b"one"
        live.websocket.send("answer")
        context_took = Future[float]()
        thread = threading.Thread(
            target=lambda: context_took.set_result(live.websocket.ping(10)), daemon=True
        )
        thread.start()
        assert live.client.receive() == "answer"
        assert live.client.frame().opcode is Opcode.PING  # type: ignore[union-attr]
        assert context_took.result(10) > 0

    def test_view(self, visit: Serve) -> None:
        """As one would write it."""

        @accept_websocket(text_type=str)
        def view(request: Any) -> None:
            websocket = request.websocket
            took = websocket.ping(timeout=60)
            websocket.send_json([websocket.latency == took, 0 < took < 60])

        made = visit(view).serve()
        assert made.client.frame().opcode is Opcode.PING  # type: ignore[union-attr]
        assert made.client.receive() == "[true, true]"

    def test_async_view(self, visit: Serve) -> None:
        """The same."""

        @accept_websocket
        async def view(request: Any) -> None:
            took = await request.websocket.aping(timeout=60)
            await request.websocket.asend_json(0 < took < 60)

        made = visit(view).serve()
        assert made.client.frame().opcode is Opcode.PING  # type: ignore[union-attr]
        assert made.client.receive() == "true"


class TestLatency:
    """It also has the latency of the pings for keepalive."""

    def test_of_the_keepalive(self, open_websocket: Open) -> None:
        """The engine's own pings are empty."""
        live = open_websocket(ping_interval=0.05)
        assert live.websocket.latency is None
        assert read_ping(live) == b""
        assert live.websocket.latency is None
        pong(live, b"")
        eventually(lambda: live.websocket.latency is not None)
        assert 0 < live.websocket.latency < 20  # type: ignore[operator]

    def test_pong_that_nobody_asked_for(self, open_websocket: Open) -> None:
        """It is a heartbeat of the client's, and answers no ping."""
        live = open_websocket(ping_interval=None)
        pong(live, b"")
        live.client.send("behind it")
        assert live.websocket.receive(10) == "behind it"
        assert live.websocket.latency is None


@both
class TestWaitClosed:
    """`wait_closed` and `await_closed`."""

    @pytest.mark.parametrize("timeout", [None, 10])
    @pytest.mark.parametrize("how", ENDS)
    def test_end(
        self, open_websocket: Open, as_async: bool, timeout: float | None, how: str
    ) -> None:
        """Wakes it, and it takes no message."""
        live = open_websocket()
        live.client.send("unread")
        eventually(lambda: live.connection.waiting() == (1, False))
        closed = wait_closed(live, timeout, as_async=as_async)
        ENDS[how](live)
        assert closed.result(10) is True
        assert live.websocket.closed is True
        assert live.websocket.receive(0) == "unread"

    def test_time_is_up(self, open_websocket: Open, as_async: bool) -> None:
        """False; and again and again, without anything heaping up."""
        live = open_websocket()
        for timeout in (0, 0.01, 0.01):
            assert wait_closed(live, timeout, as_async=as_async).result(10) is False
        live.websocket.close()
        assert wait_closed(live, 0, as_async=as_async).result(10) is True

    def test_answer_to_a_ping_is_no_end(self, open_websocket: Open, as_async: bool) -> None:
        """It wakes only calls that wait for pings."""
        live = open_websocket()
        closed = wait_closed(live, None, as_async=as_async)
        took = ping(live, as_async=as_async)
        pong(live, read_ping(live))
        took.result(10)
        assert not closed.done()
        live.client.close()
        assert closed.result(10) is True

    def test_from_another_thread_of_a_view(self, visit: Serve, as_async: bool) -> None:
        """The call returns in a thread that keeps a websocket."""
        kept: list[WebSocket] = []

        def view(request: Any) -> None:
            kept.append(request.websocket)
            echo(request)

        made = visit(accept_websocket(view)).serve()
        eventually(lambda: bool(kept))
        websocket = kept[0]
        if as_async:
            closed = in_plain_thread(lambda: asyncio.run(websocket.await_closed()))
        else:
            closed = in_plain_thread(websocket.wait_closed)
        made.client.close()
        assert closed.result(10) is True


class TestWaitClosedElsewhere:
    """Where it cannot be."""

    def test_would_block_an_event_loop(self, open_websocket: Open) -> None:
        """Unless it only looks."""
        live = open_websocket()

        async def main() -> None:
            assert live.websocket.wait_closed(0) is False
            with pytest.raises(UsageError, match=r"use `await websocket\.await_closed\(\)`"):
                live.websocket.wait_closed(1)

        asyncio.run(main())

    def test_before_the_connection_is_open(self) -> None:
        """It would wait for something that may never be."""
        with pytest.raises(UsageError, match="not open yet"):
            WebSocket().wait_closed()

    def test_own_view_gives_its_database_back(
        self,
        open_websocket: Open,
        own: Callable[[WebSocket], None],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """As it does in any call that waits long."""
        released: list[bool] = []
        monkeypatch.setattr("dwebsocket.api.ending.IDLE_AFTER_S", 0.01)
        monkeypatch.setattr(
            "dwebsocket.request.database.release_idle", lambda: released.append(True)
        )
        live = open_websocket()
        own(live.websocket)
        assert live.websocket.wait_closed(0.05) is False
        assert released == [True]


def test_stepped_clock(open_websocket: Open) -> None:
    """Tests that step the time do so for these waits, too."""
    live = open_websocket()
    took = ping(live, 1000, as_async=False)
    closed = wait_closed(live, 1000, as_async=False)
    read_ping(live)

    def is_over() -> bool:
        # The other thread may be about to begin its wait only now.
        _core.step_clock(2000)
        return closed.done()

    eventually(is_over, what="the waits are over")
    with pytest.raises(PingTimeout):
        took.result(60)
    assert closed.result() is False
