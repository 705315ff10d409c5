"""A connection over ASGI events, without a server."""

from __future__ import annotations

import asyncio
import threading
import weakref
from typing import TYPE_CHECKING, Any

import pytest

from dwebsocket import ConnectionClosed, ReceiveTimeout, SendTimeout, WebSocket, _core, conf
from dwebsocket.api.base import own_websocket
from dwebsocket.api.waiting import loop_hub
from dwebsocket.compat import uvicorn
from dwebsocket.servers.asgi import carrying
from dwebsocket.servers.asgi.carrying import Carriage
from dwebsocket.servers.handshake import Opening
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

Event = dict[str, Any]


class Wire:
    """A server's side: events in, events out; writing can be held up."""

    def __init__(self, **options: Any) -> None:
        self.incoming: asyncio.Queue[Event] = asyncio.Queue()
        self.sent: list[Event] = []
        self.flowing = asyncio.Event()
        self.flowing.set()
        self.received = 0
        self.held_up = False
        permit = _core.Permit.claim(None)
        assert permit is not None
        self.options = conf.Options.current(conf.overrides("test", options))
        accept = {"type": "websocket.accept"}
        opening = Opening([], None, self.options, permit, [])
        self.carriage = Carriage(self._receive, self._send, accept, opening)
        self.connection = self.carriage.connection
        permit.release()
        self.serving = asyncio.create_task(self.carriage.serve())
        self.websocket = WebSocket()
        self.websocket._attach(self.connection, self.options, None)

    async def _receive(self) -> Event:
        event = await self.incoming.get()
        self.received += 1
        return event

    async def _send(self, event: Any) -> None:
        self.held_up = not self.flowing.is_set()
        await self.flowing.wait()
        self.sent.append(event)

    def put(self, message: str | bytes) -> None:
        """Let a message come in."""
        kind = "text" if isinstance(message, str) else "bytes"
        self.incoming.put_nowait({"type": "websocket.receive", kind: message})

    def disconnect(self, code: int | None = 1000, reason: str = "") -> None:
        """Let the client go."""
        event = {"type": "websocket.disconnect", "code": code, "reason": reason}
        self.incoming.put_nowait(event)

    def said(self) -> list[Any]:
        """Return the messages that went out."""
        return [e.get("text", e.get("bytes")) for e in self.sent if e["type"] == "websocket.send"]


def in_loop(test: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    """Run an async test in a loop of its own, with no connection left behind."""

    def run() -> None:
        eventually(lambda: _core.open_connections() == 0, what="no connection of another test")
        asyncio.run(asyncio.wait_for(test(), 60))
        # The engine's thread does that.
        eventually(lambda: _core.open_connections() == 0, what="the end of each connection")

    run.__name__, run.__doc__ = test.__name__, test.__doc__
    return run


async def until(condition: Callable[[], Any]) -> None:
    """Let the loop run until something is so."""
    # Not without a pause: threads that are to bring it about need the GIL.
    while not condition():  # noqa: ASYNC110
        await asyncio.sleep(0.001)


@in_loop
async def test_half_closed_it_sends_until_it_is_closed() -> None:
    """Nothing comes in any more; the close goes out as it was begun."""
    wire = Wire()
    assert wire.connection.half_close(1000, "over")
    wire.put("too late")
    assert not wire.connection.half_close(1001, "")
    assert wire.websocket.closed
    with pytest.raises(ConnectionClosed, match="over"):
        await wire.websocket.areceive()
    assert wire.websocket.send("last words")
    assert not wire.connection.close(1001, "")
    assert not wire.websocket.send("late")
    await until(lambda: len(wire.sent) == 3)
    assert wire.said() == ["last words"]
    assert wire.sent[2] == {"type": "websocket.close", "code": 1000, "reason": "over"}
    wire.disconnect()
    await wire.serving


@in_loop
async def test_accept_goes_first_and_order_is_kept() -> None:
    """Messages that the view sends at once come behind the accept."""
    wire = Wire()
    assert wire.websocket.send("one")
    assert await wire.websocket.asend(b"\xff")
    wire.websocket.close(4000, "bye")
    assert not wire.websocket.send("late")
    await until(lambda: len(wire.sent) == 4)
    assert [event["type"] for event in wire.sent][::3] == ["websocket.accept", "websocket.close"]
    assert wire.said() == ["one", b"\xff"]
    assert (wire.sent[3]["code"], wire.sent[3]["reason"]) == (4000, "bye")
    wire.disconnect(4000)
    await wire.serving
    assert wire.connection.end() == (4000, "bye", "local")


@in_loop
async def test_messages_before_the_end_are_given_first() -> None:
    """Then it raises, with the client's code."""
    wire = Wire()
    wire.put("é")
    wire.put(b"two")
    wire.disconnect(4001, "why")
    assert [message async for message in wire.websocket] == ["é", b"two"]
    with pytest.raises(ConnectionClosed) as caught:
        await wire.websocket.areceive()
    assert (caught.value.code, caught.value.reason, caught.value.by) == (4001, "why", "peer")
    await wire.serving


@in_loop
async def test_listen_notifies_later_or_reports_that_something_is_there() -> None:
    """`listen` behaves as on the engine's connections."""
    wire = Wire()
    connection = wire.connection
    waiting = asyncio.create_task(loop_hub.current().wait(connection, connection.listen))
    await until(connection.is_awaited)
    wire.put("first")
    await waiting
    assert not connection.listen(_core.Hub(), 1)
    assert connection.pop(False) == "first"
    wire.disconnect()
    await until(lambda: connection.waiting() == (0, True))
    assert not connection.listen(_core.Hub(), 2)
    await wire.serving


@in_loop
async def test_full_inbox_stops_reading_until_there_is_room() -> None:
    """1,024 messages are read ahead; a close from our side is noticed all the same."""
    wire = Wire()
    for number in range(3000):
        wire.put(str(number))
    await until(lambda: wire.connection.waiting()[0] == 1024)
    for _ in range(20):
        await asyncio.sleep(0)
    assert wire.received == 1024
    assert [await wire.websocket.areceive() for _ in range(3000)] == [str(n) for n in range(3000)]
    for number in range(3000):
        wire.put(str(number))
    await until(lambda: wire.connection.waiting()[0] == 1024)
    wire.websocket.close()
    wire.disconnect()
    await wire.serving


@in_loop
async def test_size_of_the_inbox_is_a_setting() -> None:
    """In bytes; the message that fills it may be larger than what is left."""
    wire = Wire(receive_buffer=10)
    sent = ["ééé", "four", "x" * 100, "next"]
    for message in sent:
        wire.put(message)
    await until(lambda: wire.connection.waiting()[0] == 2)
    for _ in range(20):
        await asyncio.sleep(0)
    assert wire.received == 2
    assert [await wire.websocket.areceive() for _ in sent] == sent
    wire.disconnect()
    await wire.serving


@in_loop
async def test_message_over_the_limit_closes_with_1009() -> None:
    """By bytes, not characters."""
    wire = Wire(max_message_size=5)
    wire.put("éé")
    assert await wire.websocket.areceive() == "éé"
    wire.put("ééé")
    await until(lambda: wire.sent and wire.sent[-1]["type"] == "websocket.close")
    assert wire.sent[-1]["code"] == 1009
    wire.disconnect(1009)
    await wire.serving


@in_loop
async def test_own_view_waits_for_room_and_others_never() -> None:
    """The own view's timeout ends with SendTimeout; a sender elsewhere closes the client: 1013."""
    wire = Wire(send_buffer=1000, send_timeout=0.05)
    wire.flowing.clear()
    token = own_websocket.set(wire.websocket)
    await wire.websocket.asend("x" * 900)
    with pytest.raises(SendTimeout):
        await wire.websocket.asend("x" * 900)
    waiting = asyncio.create_task(wire.websocket.asend("y" * 900))
    await asyncio.sleep(0)
    wire.flowing.set()
    assert await waiting
    await until(lambda: wire.connection.traffic()[6] == 0)
    own_websocket.reset(token)
    wire.flowing.clear()
    assert await wire.websocket.asend("z" * 900)
    assert not await wire.websocket.asend("z" * 900)
    assert wire.connection.end() == (1013, "too slow", "local")
    wire.flowing.set()
    wire.disconnect(1013)
    await wire.serving


@in_loop
async def test_cancelled_and_timed_out_receives_lose_nothing_and_leave_nothing() -> None:
    """Neither a message nor a watch."""
    wire = Wire()
    for number in range(200):
        receiving = asyncio.create_task(wire.websocket.areceive())
        await asyncio.sleep(0)
        if number % 2:
            wire.put(str(number))
        receiving.cancel()
        try:
            assert await receiving == str(number)
        except asyncio.CancelledError:
            if number % 2:
                assert await wire.websocket.areceive() == str(number)
    with pytest.raises(ReceiveTimeout):
        await wire.websocket.areceive(timeout=0.001)
    assert not wire.connection.is_awaited()
    wire.disconnect()
    await wire.serving


@in_loop
async def test_threads_wait_and_send() -> None:
    """A sync view on its thread: it sleeps, is woken, and sees the end."""
    wire = Wire()

    def view() -> None:
        for message in wire.websocket:
            wire.websocket.send(message)

    thread = threading.Thread(target=view)
    thread.start()
    for number in range(500):
        wire.put(str(number))
    await until(lambda: len(wire.said()) == 500)
    assert wire.said() == [str(number) for number in range(500)]
    wire.disconnect(None)
    await wire.serving
    await asyncio.to_thread(thread.join, 50)
    assert not thread.is_alive()
    assert wire.connection.end() == (1005, "", "peer")


@in_loop
async def test_server_that_cancels_is_the_end() -> None:
    """The client gets 1001, views see it, and the permit is free."""
    wire = Wire()
    waiting = asyncio.create_task(wire.websocket.areceive())
    await until(lambda: wire.sent)
    wire.serving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await wire.serving
    with pytest.raises(ConnectionClosed):
        await waiting
    assert wire.sent[-1]["code"] == 1001


@in_loop
async def test_server_is_let_go_at_the_end() -> None:
    """A request that keeps its WebSocket does not keep the server's side of it, too."""

    async def end(websocket_closes: bool) -> tuple[WebSocket, weakref.ref[Wire]]:
        wire = Wire()
        if websocket_closes:
            wire.websocket.close(4000)
            await until(lambda: len(wire.sent) == 2)
        wire.disconnect()
        await wire.serving
        return wire.websocket, weakref.ref(wire)

    for closes in (False, True):
        websocket, wire = await end(closes)
        await until(lambda: wire() is None)  # noqa: B023
        assert websocket.close_code == (4000 if closes else 1000)


def test_a_server_that_cancels_a_slow_client(monkeypatch: pytest.MonkeyPatch) -> None:
    """The timer that looks how much the client has read is still to come then, and finds no end."""
    monkeypatch.setattr(carrying, "_CLOSE_FRAME_S", 0.0)
    monkeypatch.setattr(carrying, "_LOOK_AT_CLIENT_S", 0.0)
    monkeypatch.setattr(uvicorn, "queued", lambda send: 1)

    @in_loop
    async def cancelled() -> None:
        failed: list[Any] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, failure: failed.append(failure))
        wire = Wire()
        wire.websocket.send("x" * 4096)
        await until(wire.said)
        wire.serving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await wire.serving
        # The next turns of the loop have the timer.
        for _ in range(3):
            await asyncio.sleep(0)
        assert failed == []

    cancelled()


@in_loop
async def test_server_that_fails_to_write_is_the_end() -> None:
    """The view sees a client that vanished."""
    wire = Wire(close_timeout=0.01)

    async def broken(event: Event) -> None:
        raise OSError("gone")

    wire.carriage._send = broken
    wire.websocket.send("lost")
    await wire.serving
    assert wire.connection.end() == (1006, "", "lost")


@in_loop
async def test_arguments_are_checked_as_by_the_engine() -> None:
    """Codes, reasons, and text that is none."""
    wire = Wire()
    for code, reason in ((1005, ""), (999, ""), (1000, "x" * 124)):
        with pytest.raises(ValueError, match="close"):
            wire.websocket.close(code, reason)
    with pytest.raises(ValueError, match="UTF-8"):
        wire.websocket.send_text(b"\xff")
    wire.disconnect()
    await wire.serving


@in_loop
async def test_client_that_sends_too_fast() -> None:
    """It is made to wait, and closed with 1008 when it goes on."""
    wire = Wire(max_messages_per_second=1000, rate_timeout=0.2)
    for _ in range(5000):
        wire.put("x")
    taken = 0
    async for _ in wire.websocket:
        taken += 1
    assert wire.connection.end() == (1008, "too many messages or bytes a second", "local")
    assert 1000 <= taken < 5000
    wire.disconnect(1008)
    await wire.serving


def test_handshake_while_the_process_leaves_is_closed_with_1012(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A handshake that was validated before would otherwise hold the process."""
    monkeypatch.setattr(_core, "is_leaving", lambda: True)

    @in_loop
    async def late() -> None:
        wire = Wire()
        await until(lambda: len(wire.sent) == 2)
        assert [event["type"] for event in wire.sent] == ["websocket.accept", "websocket.close"]
        assert wire.sent[1]["code"] == 1012
        wire.disconnect(1012)
        await wire.serving

    late()
