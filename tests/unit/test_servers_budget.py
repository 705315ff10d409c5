"""The limit on what ASGI connections buffer together, and which of them are closed at it."""

from __future__ import annotations

import asyncio
import gc
from typing import TYPE_CHECKING, Any

import pytest
from test_servers_asgi import Wire, in_loop, until

from dwebsocket import _core
from dwebsocket.compat import uvicorn
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

MIB = 2**20
STEP_BYTES, SMALL_BYTES = 4096, 64 * 1024


@pytest.fixture(autouse=True)
def _no_limit() -> Iterator[None]:
    """Begin without a limit and with nothing held, and leave it so."""
    gc.collect()
    eventually(lambda: _core.buffered_bytes() == 0, what="nothing is held")
    yield
    _core.limit_buffered(None)
    gc.collect()
    eventually(lambda: _core.buffered_bytes() == 0, what="nothing is held")


class Transport:
    """A server's transport: takes everything, and passes on as much as the test says."""

    def __init__(self) -> None:
        self.waiting = 0
        self.is_aborted = False

    def get_write_buffer_size(self) -> int:
        """As asyncio's."""
        return self.waiting

    def abort(self) -> None:
        """As asyncio's."""
        self.is_aborted = True


class BufferingWire(Wire):
    """A server that takes each message, and keeps it until the client does."""

    def __init__(self, **options: Any) -> None:
        self.transport = Transport()
        super().__init__(**options)

    async def _send(self, event: Any) -> None:
        await super()._send(event)
        self.transport.waiting += len(event.get("text") or "")


def counted(least: int) -> bool:
    """Whether so much is counted, but for changes that are not passed on."""
    return least <= _core.buffered_bytes() < least + 2 * STEP_BYTES


async def over(*wires: Wire) -> None:
    """Let the clients go, and the views."""
    for wire in wires:
        wire.flowing.set()
        wire.disconnect()
        await wire.serving
        wire.connection.discard()


@in_loop
async def test_all_that_waits_is_counted_and_given_back() -> None:
    """Messages in, the one that the view has, and messages out."""
    wire = Wire()
    for _ in range(3):
        wire.put(bytes(100_000))
    await until(lambda: counted(300_000))
    await wire.websocket.areceive()
    assert counted(300_000)
    await wire.websocket.areceive()
    assert counted(200_000)
    wire.flowing.clear()
    assert wire.websocket.send(bytes(500_000))
    assert counted(700_000)
    wire.flowing.set()
    await until(lambda: counted(200_000))
    wire.connection.discard()
    await until(lambda: _core.buffered_bytes() == 0)
    await over(wire)


@in_loop
async def test_text_is_counted_as_its_bytes() -> None:
    """The engine keeps it as UTF-8, whatever Python takes for it."""
    wire = Wire()
    wire.put("a" * 99_999 + "\U0001f600")
    await until(lambda: counted(100_003))
    await over(wire)


@in_loop
async def test_small_messages_are_not_counted_one_by_one() -> None:
    """But many of them are."""
    wire = Wire()
    wire.put("small")
    await until(lambda: wire.connection.waiting() == (1, False))
    assert _core.buffered_bytes() == 0
    for _ in range(100):
        wire.put("small")
    await until(lambda: wire.connection.waiting() == (101, False))
    assert _core.buffered_bytes() > 100 * 72 - STEP_BYTES
    await over(wire)


@in_loop
async def test_the_largest_go_first_and_the_small_stay() -> None:
    """Until there is room again; the closed clients get the reason."""
    sizes = (300_000, 900_000, 600_000, 20_000)
    wires = [Wire() for _ in sizes]
    for wire, size in zip(wires, sizes, strict=True):
        wire.put(bytes(size))
    await until(lambda: _core.buffered_bytes() > sum(sizes))
    # Without the largest there is room, but not an eighth of it.
    _core.limit_buffered(950_000)
    for wire in wires[1:3]:
        end = (1013, "the server is short of memory")
        await until(lambda wire=wire: wire.sent[-1]["type"] == "websocket.close")
        assert (wire.sent[-1]["code"], wire.sent[-1]["reason"]) == end
        assert (wire.connection.end(), wire.connection.waiting()) == ((*end, "local"), (0, True))
    await until(lambda: _core.buffered_bytes() < 950_000 // 8 * 7)
    for wire in (wires[0], wires[3]):
        assert wire.connection.end() is None
        assert await wire.websocket.areceive()
    await over(*wires)


@in_loop
async def test_a_growing_connection_finds_the_limit() -> None:
    """No call for relief is needed."""
    _core.limit_buffered(MIB)
    wires = [Wire() for _ in range(4)]
    for wire in wires:
        wire.put(bytes(400_000))
    await until(lambda: any(wire.connection.end() for wire in wires))
    await until(lambda: _core.buffered_bytes() < MIB)
    assert sum(wire.connection.end() is None for wire in wires) >= 2
    await over(*wires)


@pytest.mark.parametrize("size", [1_000, 5 * MIB])
def test_a_slow_reader_is_let_go(size: int) -> None:
    """At once behind a large message, after a moment behind a small one."""

    @in_loop
    async def test() -> None:
        wire = Wire(send_buffer=10 * MIB, send_timeout=0.5)
        await until(lambda: wire.sent)
        wire.flowing.clear()
        while _core.buffered_bytes() < 5 * MIB:
            assert wire.websocket.send(bytes(size))
        # The writer is in the middle of the first.
        await until(lambda: wire.held_up)
        _core.limit_buffered(MIB)
        await until(wire.connection.end)
        assert wire.connection.end() == (1013, "the server is short of memory", "local")
        await until(lambda: _core.buffered_bytes() < SMALL_BYTES)
        assert not wire.websocket.send("more")
        # The client takes nothing, and yet it is over.
        await asyncio.wait_for(wire.serving, 10)
        assert wire.said() == []

    test()


@in_loop
async def test_what_the_server_has_yet_to_send_counts_and_is_cut_off() -> None:
    """Where its transport can be found."""
    wire = BufferingWire(send_buffer=10 * MIB)
    assert wire.websocket.send(bytes(5 * MIB))
    await until(lambda: wire.said())
    await until(lambda: counted(5 * MIB))
    wire.transport.waiting = 0
    await until(lambda: _core.buffered_bytes() == 0)
    assert wire.websocket.send(bytes(5 * MIB))
    await until(lambda: counted(5 * MIB))
    _core.limit_buffered(MIB)
    await asyncio.wait_for(wire.serving, 10)
    assert wire.transport.is_aborted
    assert _core.buffered_bytes() == 0


@in_loop
async def test_a_large_holder_waits_for_room_and_goes_on() -> None:
    """While the view of a larger one, which is closed, still holds its message."""
    larger, other = Wire(), Wire()
    larger.put(bytes(500_000))
    await larger.websocket.areceive()
    other.put(bytes(100_000))
    await until(lambda: counted(600_000))
    _core.limit_buffered(550_000)
    await until(larger.connection.end)
    other.put(bytes(100_000))
    other.put(bytes(100_000))
    await until(lambda: other.received == 2)
    for _ in range(20):
        await asyncio.sleep(0)
    assert other.received == 2
    larger.connection.discard()
    await until(lambda: other.received == 3)
    assert other.connection.end() is None
    await over(larger, other)


@in_loop
async def test_what_a_client_left_behind_counts_until_its_view_is_over() -> None:
    """It can be read, and can go."""
    wire = Wire()
    wire.put(bytes(100_000))
    wire.put(bytes(100_000))
    wire.disconnect()
    await wire.serving
    assert counted(200_000)
    assert len(await wire.websocket.areceive()) == 100_000
    _core.limit_buffered(150_000)
    await until(lambda: wire.connection.waiting() == (0, True))
    wire.connection.discard()
    assert _core.buffered_bytes() == 0


@pytest.mark.parametrize("begin", ["close", "half_close"])
def test_one_that_is_closing_is_cut_short(begin: str) -> None:
    """Its queued messages are dropped; the client still gets the view's own close code."""

    @in_loop
    async def test() -> None:
        wire = Wire()
        await until(lambda: wire.sent)
        wire.flowing.clear()
        for _ in range(100):
            assert wire.websocket.send(bytes(10_000))
        getattr(wire.connection, begin)(4000, "bye")
        _core.limit_buffered(500_000)
        await until(lambda: _core.buffered_bytes() < SMALL_BYTES)
        wire.flowing.set()
        await until(lambda: wire.sent[-1]["type"] == "websocket.close")
        assert wire.sent[-1]["code"] == 4000
        assert wire.connection.end() == (4000, "bye", "local")
        await over(wire)

    test()


@in_loop
async def test_a_forgotten_connection_gives_back() -> None:
    """Also without a call that says that its view is over."""
    wire = Wire()
    wire.put(bytes(100_000))
    wire.disconnect()
    await wire.serving
    assert counted(100_000)


def test_no_transport_is_no_mistake() -> None:
    """Of most servers nothing is known."""
    assert uvicorn.queued(test_no_transport_is_no_mistake) == 0
    uvicorn.abort(print)
