"""The limit on what ASGI connections buffer together, and which of them are closed at it."""

from __future__ import annotations

import asyncio
import gc
from typing import TYPE_CHECKING, Any

import pytest
from test_servers_asgi import Wire, in_loop, until

from dwebsocket.compat import uvicorn
from dwebsocket.servers import budget

if TYPE_CHECKING:
    from collections.abc import Iterator

MIB = 2**20


@pytest.fixture(autouse=True)
def _no_limit() -> Iterator[None]:
    """Begin without a limit and with nothing held, and leave it so."""
    gc.collect()
    assert budget.process.held == 0
    yield
    budget.process.limit = None
    gc.collect()
    assert budget.process.held == 0


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


def limit(size: int) -> None:
    """Set the limit of the process, as a growing connection would find it."""
    budget.process.limit = size
    budget.process.relieve()


def counted(least: int) -> bool:
    """Whether so much is counted, but for changes that are not passed on."""
    return least <= budget.process.held < least + budget.STEP_BYTES


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
    assert budget.process.held == 0
    await over(wire)


@in_loop
async def test_text_is_counted_as_it_is_in_memory() -> None:
    """A single character outside the BMP makes all of them four bytes wide."""
    wire = Wire()
    wire.put("a" * 99_999 + "\U0001f600")
    await until(lambda: counted(400_000))
    await over(wire)


@in_loop
async def test_small_messages_are_not_counted_one_by_one() -> None:
    """But many of them are."""
    wire = Wire()
    wire.put("small")
    await until(lambda: wire.connection.waiting() == (1, False))
    assert budget.process.held == 0
    for _ in range(100):
        wire.put("small")
    await until(lambda: wire.connection.waiting() == (101, False))
    assert budget.process.held > 100 * 256 - budget.STEP_BYTES
    await over(wire)


@in_loop
async def test_the_largest_go_first_and_the_small_stay() -> None:
    """Until there is room again; the closed clients get the reason."""
    sizes = (300_000, 900_000, 600_000, 20_000)
    wires = [Wire() for _ in sizes]
    for wire, size in zip(wires, sizes, strict=True):
        wire.put(bytes(size))
    await until(lambda: budget.process.held > sum(sizes))
    # Without the largest there is room, but not an eighth of it.
    limit(950_000)
    for wire in wires[1:3]:
        end = (1013, "the server is short of memory")
        await until(lambda wire=wire: wire.sent[-1]["type"] == "websocket.close")
        assert (wire.sent[-1]["code"], wire.sent[-1]["reason"]) == end
        assert (wire.connection.end(), wire.connection.waiting()) == ((*end, "local"), (0, True))
    await until(lambda: budget.process.held < 950_000 // 8 * 7)
    for wire in (wires[0], wires[3]):
        assert wire.connection.end() is None
        assert await wire.websocket.areceive()
    await over(*wires)


@in_loop
async def test_a_growing_connection_finds_the_limit() -> None:
    """No call for relief is needed."""
    budget.process.limit = MIB
    wires = [Wire() for _ in range(4)]
    for wire in wires:
        wire.put(bytes(400_000))
    await until(lambda: any(wire.connection.end() for wire in wires))
    await until(lambda: budget.process.held < MIB)
    assert sum(wire.connection.end() is None for wire in wires) >= 2
    await over(*wires)


@pytest.mark.parametrize("size", [1_000, 5 * MIB])
def test_a_slow_reader_is_let_go(size: int) -> None:
    """At once behind a large message, after a moment behind a small one."""

    @in_loop
    async def test() -> None:
        wire = Wire(send_buffer=10 * MIB)
        await until(lambda: wire.sent)
        wire.flowing.clear()
        while budget.process.held < 5 * MIB:
            assert wire.websocket.send(bytes(size))
        # The writer is in the middle of the first.
        await asyncio.sleep(0)
        limit(MIB)
        assert wire.connection.end() == (1013, "the server is short of memory", "local")
        assert budget.process.held < budget.SMALL_BYTES
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
    await until(lambda: budget.process.held == 0)
    assert wire.websocket.send(bytes(5 * MIB))
    await until(lambda: counted(5 * MIB))
    limit(MIB)
    await asyncio.wait_for(wire.serving, 10)
    assert wire.transport.is_aborted
    assert budget.process.held == 0


@in_loop
async def test_a_large_holder_waits_for_room_and_goes_on() -> None:
    """While the view of a larger one, which is closed, still holds its message."""
    larger, other = Wire(), Wire()
    larger.put(bytes(500_000))
    await larger.websocket.areceive()
    other.put(bytes(100_000))
    await until(lambda: counted(600_000))
    limit(550_000)
    assert larger.connection.end() is not None
    other.put(bytes(100_000))
    other.put(bytes(100_000))
    await until(lambda: other.received == 2)
    await until(lambda: other.connection._memory is not None)
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
    limit(150_000)
    assert wire.connection.waiting() == (0, True)
    wire.connection.discard()
    assert budget.process.held == 0


@in_loop
async def test_one_that_is_closing_is_cut_short() -> None:
    """Its queued messages are dropped; the client still gets the view's own close code."""
    wire = Wire()
    await until(lambda: wire.sent)
    wire.flowing.clear()
    for _ in range(100):
        assert wire.websocket.send(bytes(10_000))
    wire.websocket.close(4000, "bye")
    limit(500_000)
    await until(lambda: budget.process.held < budget.SMALL_BYTES)
    wire.flowing.set()
    await until(lambda: wire.sent[-1]["type"] == "websocket.close")
    assert wire.sent[-1]["code"] == 4000
    assert wire.connection.end() == (4000, "bye", "local")
    await over(wire)


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
