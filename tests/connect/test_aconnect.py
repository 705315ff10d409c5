"""`dwebsocket.aconnect`: a client in event loops."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import threading
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from aiohttp import web
from websockets import exceptions

from dwebsocket import (
    ConnectionClosed,
    ConnectionFailed,
    ReceiveTimeout,
    UsageError,
    aconnect,
    connect,
)
from dwebsocket.client import dialing
from support.far_server import far_server
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine

    from websockets.sync.server import ServerConnection

    from dwebsocket import ClientConnection

MESSAGES: list[str | bytes] = ["", "grüße", b"\x00\xff", "水🎉" * 30_000, bytes(1 << 20)]


def run(main: Coroutine[Any, Any, None]) -> None:
    """Run a test in a loop of its own, with a limit."""
    asyncio.run(asyncio.wait_for(main, 60))


@contextlib.asynccontextmanager
async def aiohttp_server() -> AsyncIterator[str]:
    """A server of `aiohttp` that echoes, in this loop."""

    async def echo(request: web.Request) -> web.WebSocketResponse:
        response = web.WebSocketResponse(max_msg_size=0)
        await response.prepare(request)
        async for message in response:
            if message.type == aiohttp.WSMsgType.TEXT:
                await response.send_str(message.data)
            else:
                await response.send_bytes(message.data)
        return response

    application = web.Application()
    application.router.add_get("/", echo)
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        host, port = runner.addresses[0][:2]
        yield f"ws://{host}:{port}/"
    finally:
        await runner.cleanup()


@pytest.mark.parametrize("compression", [True, False])
def test_messages_come_back_as_they_were(compression: bool) -> None:
    """From a server in the same loop, which goes on meanwhile."""

    async def main() -> None:
        async with (
            aiohttp_server() as url,
            aconnect(url, compression=compression) as websocket,
        ):
            assert websocket.is_compressed is compression
            for message in MESSAGES:
                await websocket.asend(message)
                assert await websocket.areceive(20) == message
            for message in MESSAGES:
                await websocket.asend(message)
            assert [await websocket.areceive() for _ in MESSAGES] == MESSAGES
            await websocket.asend_json({"a": 1})
            assert await websocket.areceive_json() == {"a": 1}
            assert 0 < await websocket.aping() < 20
            assert not await websocket.await_closed(0.01)
        assert websocket.close_code == 1000

    run(main())


def test_it_can_be_awaited_and_iterated() -> None:
    """Three ways to the same."""

    def count(connection: ServerConnection) -> None:
        for number in range(3):
            connection.send(str(number))

    async def main(url: str) -> None:
        websocket = await aconnect(url)
        assert [message async for message in websocket] == ["0", "1", "2"]
        assert [message async for message in aconnect(url)] == ["0", "1", "2"]
        async with aconnect(url) as websocket:
            assert await websocket.areceive() == "0"
        async with await aconnect(url) as websocket:
            assert await websocket.areceive() == "0"
        with pytest.raises(ConnectionClosed):
            await websocket.asend("too late")

    with far_server(count) as url:
        run(main(url))


@pytest.mark.parametrize("way", ["exit stack", "with", "break", "error"])
def test_another_task_may_leave_than_the_one_that_has_entered(way: str) -> None:
    """A fixture, an exit stack, a generator that is left early: asyncio closes it in a new task."""
    codes: list[int | None] = []

    def note_end(connection: ServerConnection) -> None:
        with contextlib.suppress(exceptions.ConnectionClosed):
            connection.send("one")
            connection.recv()
        codes.append(connection.close_code)

    async def main(url: str) -> None:
        if way == "break":
            async for _ in aconnect(url):
                break
        elif way == "exit stack":
            stack = contextlib.AsyncExitStack()
            websocket = await stack.enter_async_context(aconnect(url))
            await asyncio.create_task(stack.aclose())
            assert websocket.closed
        else:
            opening = aconnect(url)
            await asyncio.create_task(opening.__aenter__())
            assert not await opening.__aexit__(*([KeyError] if way == "error" else []))

    with far_server(note_end) as url:
        run(main(url))
        eventually(lambda: codes)
    assert codes == [1000]


@pytest.mark.parametrize("what", ["dial", "hub"])
def test_without_a_descriptor_it_is_a_failure(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also for what this loop needs first."""

    def refuse(*_: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    async def main(url: str) -> None:
        name = {"dial": "_prepare", "hub": "await_call"}[what]
        with monkeypatch.context() as patch:
            patch.setattr(dialing, name, refuse)
            with pytest.raises(ConnectionFailed, match="Too many open files"):
                await aconnect(url)
        async with aconnect(url):
            pass

    with far_server() as url:
        run(main(url))


def test_each_task_closes_its_own() -> None:
    """Of one opening that several enter."""

    async def main(url: str) -> None:
        opening, has_entered = aconnect(url), asyncio.Event()

        async def enter_first() -> None:
            async with opening as websocket:
                has_entered.set()
                await closed.wait()
                assert not websocket.closed
            assert websocket.closed

        closed = asyncio.Event()
        first = asyncio.create_task(enter_first())
        await has_entered.wait()
        async with opening as second:
            pass
        assert second.closed
        closed.set()
        await first

    with far_server() as url:
        run(main(url))


def test_cancelling_loses_no_message() -> None:
    """Neither by a timeout nor by a cancelled task."""

    async def main() -> None:
        async with aiohttp_server() as url, aconnect(url) as websocket:
            with pytest.raises(ReceiveTimeout):
                await websocket.areceive(0.01)
            waiting = asyncio.ensure_future(websocket.areceive())
            await asyncio.sleep(0)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            await websocket.asend("kept")
            assert await websocket.areceive(20) == "kept"

    run(main())


def test_event_loops_receive_from_one_connection() -> None:
    """By turns, each as often as it likes, whichever call it uses."""
    with far_server() as url, connect(url) as websocket:

        async def receive() -> object:
            return await websocket.areceive()

        async def iterate() -> object:
            async for message in websocket:
                return message
            return None

        async def ask(message: str, way: Callable[[], Coroutine[Any, Any, object]]) -> None:
            answer = asyncio.ensure_future(way())
            # It sleeps in this loop before there is an answer.
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            await websocket.asend(message)
            assert await asyncio.wait_for(answer, 60) == message

        loops = [asyncio.new_event_loop() for _ in range(2)]
        for way in (receive, iterate):
            for loop in [*loops, *loops]:
                for message in ("first", "second"):
                    loop.run_until_complete(ask(message, way))
        for loop in loops:
            loop.close()
        # The loops that it slept in may be gone.
        for _ in range(2):
            run(ask("new", receive))


def test_event_loops_of_several_threads_receive_from_one_connection() -> None:
    """At once. Each message goes to one of them."""
    heard: SimpleQueue[object] = SimpleQueue()

    async def receive(websocket: ClientConnection) -> None:
        async for message in websocket:
            heard.put(message)

    with far_server() as url, ThreadPoolExecutor(4) as pool:
        with connect(url) as websocket:
            ends = [pool.submit(asyncio.run, receive(websocket)) for _ in range(4)]
            for number in range(100):
                websocket.send(str(number))
                assert heard.get(timeout=60) == str(number)
        for each in ends:
            each.result(60)
    assert heard.empty()


def test_cancelling_gives_up_opening() -> None:
    """The server sees the end, though the program keeps the exception with all its frames."""

    async def main() -> None:
        heard = asyncio.Event()

        async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            opening.cancel()
            assert await reader.read() == b""
            writer.close()
            heard.set()

        async with await asyncio.start_server(mute, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            opening = asyncio.ensure_future(_open(f"ws://127.0.0.1:{port}/"))
            with pytest.raises(asyncio.CancelledError) as kept:
                await opening
            await heard.wait()
            del kept

    run(main())


def test_cancelling_closes_what_is_open_already() -> None:
    """Also where the loop has not seen the answer yet, and while the exception is kept."""
    asked, answered, opened, ended = (threading.Event() for _ in range(4))

    def wait_before_answering(*_: object) -> None:
        asked.set()
        answered.wait(60)

    def note(connection: ServerConnection) -> None:
        opened.set()
        for _ in connection:
            pass
        ended.set()

    async def main() -> None:
        opening = asyncio.ensure_future(_open(url))
        await asyncio.to_thread(asked.wait, 60)
        answered.set()
        assert opened.wait(60)
        opening.cancel()
        with pytest.raises(asyncio.CancelledError) as kept:
            await opening
        assert await asyncio.to_thread(ended.wait, 20)
        del kept

    with far_server(note, process_request=wait_before_answering) as url:
        run(main())


async def _open(url: str) -> None:
    await aconnect(url, open_timeout=60)


def test_many_tasks_share_a_loop() -> None:
    """Each on a connection of its own."""

    async def talk(url: str, number: int) -> None:
        async with aconnect(url) as websocket:
            for turn in range(20):
                await websocket.asend(f"{number} {turn}")
                assert await websocket.areceive() == f"{number} {turn}"

    async def main() -> None:
        async with aiohttp_server() as url:
            await asyncio.gather(*(talk(url, number) for number in range(50)))

    run(main())


def test_sync_calls_in_a_loop_name_the_twin() -> None:
    """Those that would block it; `send` has room here."""

    async def main() -> None:
        async with aiohttp_server() as url, aconnect(url) as websocket:
            for call, twin in (
                (websocket.receive, "areceive"),
                (websocket.ping, "aping"),
                (websocket.wait_closed, "await_closed"),
            ):
                with pytest.raises(UsageError, match=rf"use `await websocket.{twin}\(\)`"):
                    call()
            websocket.send("at once")
            assert await websocket.areceive() == "at once"

    run(main())


def test_failures_are_raised_when_it_is_awaited() -> None:
    """Not when it is made."""

    async def main() -> None:
        opening = aconnect("ws://127.0.0.1:1/")
        with pytest.raises(ConnectionFailed):
            await opening

    run(main())
