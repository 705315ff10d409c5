"""The threads of async views."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import weakref
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.db import connection, connections, transaction

from dwebsocket.compat import unpatched
from dwebsocket.compat.asgiref import current_context
from dwebsocket.request import database
from dwebsocket.runners import async_view_threads
from dwebsocket.runners.async_view_threads import OwnThread, Threads
from support.waiting import eventually

View = Callable[[], Awaitable[Any]]

MOST = 3


@pytest.fixture(autouse=True)
def threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[Threads]:
    """Few threads, which go soon."""
    threads = Threads(MOST)
    monkeypatch.setattr(async_view_threads, "_threads", threads)
    monkeypatch.setattr(database, "IDLE_AFTER_S", 0.05)
    yield threads
    eventually(lambda: threads.left == MOST, what="all threads are given back")
    assert not threads.waiting
    assert not threads.resting


async def in_view(view: View) -> Any:
    """Run an async function as `arun` does."""
    own = OwnThread.enter()
    try:
        return await view()
    finally:
        await own.leave()


def run(*views: View) -> list[Any]:
    """Run async functions as views side by side."""

    async def main() -> list[Any]:
        return await asyncio.gather(*(asyncio.create_task(in_view(view)) for view in views))

    return asyncio.run(main())


def thread_name() -> str:
    """Name the thread that calls."""
    return threading.current_thread().name


def test_view_that_calls_nothing_has_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Thousands of async views cost no threads."""
    monkeypatch.setattr(unpatched, "start_thread", None)

    async def view() -> None:
        await asyncio.sleep(0)

    run(*[view] * 100)


def test_calls_of_one_view_share_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """They share the objects of that thread, such as a database connection."""
    monkeypatch.setattr(database, "IDLE_AFTER_S", 60)

    async def view() -> set[int]:
        return {await sync_to_async(threading.get_ident)() for _ in range(5)}

    (idents,) = run(view)
    assert len(idents) == 1
    assert idents != {threading.get_ident()}


def test_slow_call_does_not_hold_up_other_views() -> None:
    """Each has a thread of its own."""
    goes_on = threading.Event()

    async def slow() -> bool:
        return await sync_to_async(goes_on.wait)(10)

    async def quick() -> None:
        await sync_to_async(goes_on.set)()

    assert run(slow, quick) == [True, None]


def test_further_views_wait_for_a_thread(threads: Threads) -> None:
    """No more run at once than may; all have their turns."""
    running: list[int] = []
    most: list[int] = []

    def work() -> None:
        running.append(1)
        most.append(len(running))
        time.sleep(0.005)
        running.pop()

    async def view() -> None:
        for _ in range(3):
            await sync_to_async(work)()

    run(*[view] * 20)
    assert len(most) == 60
    assert max(most) <= MOST


def test_views_that_rest_give_theirs(threads: Threads, monkeypatch: pytest.MonkeyPatch) -> None:
    """A resting view gives its thread up at once when another view needs one."""
    monkeypatch.setattr(database, "IDLE_AFTER_S", 60)
    wanted = asyncio.Event

    async def main() -> list[str]:
        over = wanted()

        async def view() -> None:
            await sync_to_async(thread_name)()
            await over.wait()

        resting = [asyncio.create_task(in_view(view)) for _ in range(10)]
        while threads.waiting or not threads.resting:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        late = [await in_view(sync_to_async(thread_name)) for _ in range(10)]
        over.set()
        await asyncio.gather(*resting)
        return late

    assert len(asyncio.run(asyncio.wait_for(main(), 30))) == 10


def test_thread_goes_when_nothing_is_called(threads: Threads) -> None:
    """With its connections; the next call has another."""
    closed: list[bool] = []

    def is_open() -> bool:
        before = connection.connection is not None
        connection.ensure_connection()
        return before

    async def view() -> None:
        for _ in range(2):
            closed.append(not await sync_to_async(is_open)())
            while threads.left < MOST:  # noqa: ASYNC110
                await asyncio.sleep(0.001)

    run(view)
    assert closed == [True, True]


def test_transaction_holds_the_thread(threads: Threads, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when others want it: the view's next call is in the same transaction."""
    over = threading.Event()

    async def in_transaction() -> bool:
        block = transaction.atomic()
        await sync_to_async(block.__enter__)()
        first = await sync_to_async(threading.get_ident)()
        await asyncio.sleep(0.3)
        same = await sync_to_async(threading.get_ident)() == first
        await sync_to_async(block.__exit__)(None, None, None)
        over.set()
        return same

    async def other() -> None:
        while not over.is_set():
            await sync_to_async(thread_name)()
            await asyncio.sleep(0.01)

    assert run(in_transaction, *[other] * 6)[0] is True


def test_end_closes_the_connections(threads: Threads, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the view is over, and in its own thread only."""
    monkeypatch.setattr(database, "IDLE_AFTER_S", 60)
    closed: list[str] = []
    leave = database.leave
    monkeypatch.setattr(database, "leave", lambda: (closed.append(thread_name()), leave()))

    def open_connection() -> Any:
        # Looked up here: `connection` is another one on each thread.
        connection.ensure_connection()
        return connections["default"]

    async def view() -> Any:
        return await sync_to_async(open_connection)()

    (opened,) = run(view)
    assert set(closed) == {async_view_threads._NAME}
    assert opened.connection is None


def test_task_that_outlives_its_view() -> None:
    """It still has a thread, which goes at once."""

    async def main() -> str:
        over = asyncio.Event()

        async def late() -> str:
            await over.wait()
            return await sync_to_async(thread_name)()

        async def view() -> asyncio.Task[str]:
            await sync_to_async(thread_name)()
            return asyncio.create_task(late())

        task = await asyncio.create_task(in_view(view))
        over.set()
        return await task

    assert asyncio.run(main()) == async_view_threads._NAME


def test_error_reaches_the_view() -> None:
    """As an error of any function that is awaited."""

    def fail() -> None:
        raise RuntimeError("boom")

    async def view() -> str:
        with pytest.raises(RuntimeError, match="boom"):
            await sync_to_async(fail)()
        return await sync_to_async(thread_name)()

    assert run(view) == [async_view_threads._NAME]


def test_system_that_gives_no_thread(threads: Threads, monkeypatch: pytest.MonkeyPatch) -> None:
    """The view gets the error, and the next call may succeed."""

    def refuse(name: str, target: object) -> None:
        raise RuntimeError("can't start new thread")

    async def view() -> str:
        with monkeypatch.context() as patch:
            patch.setattr(unpatched, "start_thread", refuse)
            with pytest.raises(RuntimeError, match="can't start new thread"):
                await sync_to_async(thread_name)()
        return await sync_to_async(thread_name)()

    assert run(view) == [async_view_threads._NAME]


def test_thread_that_fails(threads: Threads, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its calls get another one, and its place is free: the fixture counts."""

    failed = threading.Event()
    monkeypatch.setattr(threading, "excepthook", lambda _: failed.set())

    def fail() -> None:
        raise OSError("broken")

    async def view() -> list[str]:
        with monkeypatch.context() as patch:
            patch.setattr(database, "give_back_idle", fail)
            first = await sync_to_async(thread_name)()
            assert await asyncio.to_thread(failed.wait, 10)
        return [first, await sync_to_async(thread_name)()]

    assert run(view) == [[async_view_threads._NAME] * 2]


def test_nothing_is_left() -> None:
    """The context of a view that has ended is gone: asgiref knows it weakly."""
    contexts: list[weakref.ref[Any]] = []

    async def view() -> None:
        await sync_to_async(thread_name)()
        contexts.append(weakref.ref(current_context()))

    def left() -> list[Any]:
        gc.collect()
        return [context for reference in contexts if (context := reference()) is not None]

    run(*[view] * 10)
    assert len(contexts) == 10
    eventually(lambda: not left(), what="the contexts are gone")
