"""How event loops wait for connections."""

from __future__ import annotations

import asyncio
import gc
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from peer import LiveWebSocket
from support.waiting import eventually

from dwebsocket import ReceiveTimeout, hub

Open = Callable[..., LiveWebSocket]


def test_one_hub_serves_a_loop() -> None:
    """A loop has one hub, another loop another."""

    async def mine() -> hub.LoopHub:
        assert hub.current() is hub.current()
        return hub.current()

    assert asyncio.run(mine()) is not asyncio.run(mine())


def test_wakes_everybody_that_waits(open_websocket: Open) -> None:
    """Many connections on one loop are woken, each for its own message."""
    lives = [open_websocket() for _ in range(20)]

    async def main() -> list[Any]:
        tasks = [asyncio.create_task(live.websocket.areceive()) for live in lives]
        await asyncio.sleep(0)
        for number, live in enumerate(lives):
            live.client.send(str(number))
        return await asyncio.gather(*tasks)

    assert asyncio.run(main()) == [str(number) for number in range(20)]


def test_returns_when_the_time_is_up(open_websocket: Open) -> None:
    """Time ends the wait as a ring does, and leaves nothing behind."""
    live = open_websocket()

    async def main() -> None:
        await hub.current().wait(live.connection, live.connection.watch_inbox, 0.001)
        assert hub.current()._waiting == {}

    asyncio.run(main())


def test_a_cancellation_that_comes_with_the_message_is_not_lost(open_websocket: Open) -> None:
    """The task ends as cancelled, and the message is there for the next one."""
    live = open_websocket()

    async def main() -> None:
        task = asyncio.create_task(live.websocket.areceive(timeout=60))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        live.client.send("kept")
        eventually(lambda: live.connection.waiting() == (1, False))
        hub.current()._wake()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert hub.current()._waiting == {}
        assert await live.websocket.areceive(0) == "kept"

    asyncio.run(main())


def test_nothing_is_left_behind_by_waits_that_ended(open_websocket: Open) -> None:
    """A view that looks every second leaves no watch on a quiet connection."""
    live = open_websocket()

    async def main() -> None:
        for _ in range(3):
            with pytest.raises(ReceiveTimeout):
                await live.websocket.areceive(0.001)
        task = asyncio.create_task(live.websocket.areceive())
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        live.client.send("now")
        eventually(lambda: live.connection.waiting() == (1, False))
        assert hub.current()._hub.drain() == []

    asyncio.run(main())


def test_a_ring_for_somebody_who_left_is_ignored(open_websocket: Open) -> None:
    """A token whose waiter has gone does no harm to the others."""
    live = open_websocket()

    async def main() -> str | bytes:
        await hub.current().wait(live.connection, live.connection.watch_inbox, 0)
        live.client.send("later")
        return await live.websocket.areceive(10)

    assert asyncio.run(main()) == "later"


def test_loops_of_several_threads_wait_on_one_connection(open_websocket: Open) -> None:
    """Each message goes to one of them, none is lost."""
    live = open_websocket()

    async def take() -> str | bytes:
        return await live.websocket.areceive(10)

    with ThreadPoolExecutor(3) as pool:
        futures = [pool.submit(asyncio.run, take()) for _ in range(3)]
        for text in ("a", "b", "c"):
            live.client.send(text)
        assert sorted(future.result(10) for future in futures) == ["a", "b", "c"]


def test_descriptors_go_with_the_loop() -> None:
    """A loop that has ended leaves no hub behind."""

    async def use() -> None:
        hub.current()

    asyncio.run(use())
    gc.collect()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        asyncio.run(use())
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) == before
