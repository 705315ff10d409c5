"""Async views take and send large messages without holding up their event loop."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import Awaitable, Callable
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import pytest
from peer import LiveWebSocket

from dwebsocket.api.base import own_websocket
from dwebsocket.api.waiting import long_calls
from dwebsocket.api.waiting.long_calls import LongCalls
from dwebsocket.compat import unpatched
from support.waiting import eventually

if TYPE_CHECKING:
    from concurrent.futures import Future

    from dwebsocket import WebSocket

Open = Callable[..., LiveWebSocket]

SIZE = 8 * 1024 * 1024
#: Not the same anywhere, so that pieces in a wrong place would be seen.
LARGE = os.urandom(SIZE)
#: More turns than the loop has while a message is copied at once.
SOME_TURNS = 10


class Turns:
    """Counts the turns that other tasks of the loop get."""

    def __init__(self) -> None:
        self.count = 0

    async def take(self) -> None:
        """Take one after the other."""
        while True:
            self.count += 1
            await asyncio.sleep(0)


async def beside(turns: Turns, awaitable: Awaitable[Any]) -> Any:
    """Await it beside a task that takes turns."""
    task = asyncio.create_task(turns.take())
    await asyncio.sleep(0)
    turns.count = 0
    try:
        return await awaitable
    finally:
        task.cancel()


def arrived(live: LiveWebSocket, *messages: str | bytes) -> None:
    """Let messages come in."""
    for message in messages:
        live.client.send(message)
    eventually(lambda: live.connection.waiting()[0] == len(messages))


@pytest.fixture
def live(open_websocket: Open) -> LiveWebSocket:
    """One that has room for some of them."""
    return open_websocket(
        max_message_size=SIZE, receive_buffer=4 * SIZE, send_buffer=SIZE, text_type=str
    )


async def first_of(websocket: WebSocket) -> Any:
    """Take the first message of an iteration."""
    async for message in websocket:
        return message


TAKE: dict[str, Callable[[WebSocket], Awaitable[Any]]] = {
    "areceive": lambda websocket: websocket.areceive(),
    "areceive-timeout": lambda websocket: websocket.areceive(60),
    "async-for": first_of,
}


@pytest.mark.parametrize("take", TAKE.values(), ids=TAKE)
def test_others_run_while_one_is_taken(
    live: LiveWebSocket, take: Callable[[WebSocket], Awaitable[Any]]
) -> None:
    """The loop has turns between its pieces."""
    turns = Turns()

    async def main() -> None:
        assert await beside(turns, take(live.websocket)) == LARGE
        assert await take(live.websocket) == "small"

    arrived(live, LARGE, "small")
    asyncio.run(main())
    assert turns.count >= SOME_TURNS


@pytest.mark.parametrize("take", TAKE.values(), ids=TAKE)
def test_cancelling_loses_nothing(
    live: LiveWebSocket, take: Callable[[WebSocket], Awaitable[Any]]
) -> None:
    """A message of which a part was copied stays where it is."""

    async def main() -> None:
        task = asyncio.ensure_future(take(live.websocket))
        for _ in range(5):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        assert live.connection.waiting() == (2, False)
        assert await live.websocket.areceive() == LARGE
        assert await live.websocket.areceive() == "small"

    arrived(live, LARGE, "small")
    asyncio.run(main())


def test_each_goes_to_one_task(live: LiveWebSocket) -> None:
    """However many of them copy it at the same time."""
    others = [LARGE[::-1], LARGE[1:]]

    async def main() -> list[Any]:
        return await asyncio.gather(*(live.websocket.areceive() for _ in range(3)))

    arrived(live, LARGE, *others)
    assert sorted(asyncio.run(main())) == sorted([LARGE, *others])


def test_end_in_the_middle(live: LiveWebSocket) -> None:
    """A message that came before the close is taken as a whole."""

    async def main() -> None:
        task = asyncio.ensure_future(live.websocket.areceive())
        await asyncio.sleep(0)
        live.client.close()
        await asyncio.to_thread(live.connection.await_end, 10)
        assert await task == LARGE

    arrived(live, LARGE)
    asyncio.run(main())


def test_sync_views_take_it_whole(live: LiveWebSocket) -> None:
    """In one call, as any other."""
    arrived(live, LARGE, LARGE)
    assert live.websocket.receive() == LARGE
    assert live.websocket.receive(0) == LARGE


@pytest.mark.parametrize("own", [True, False], ids=["own", "another"])
def test_others_run_while_one_is_sent(
    live: LiveWebSocket, own: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another thread sends it; what follows comes behind it."""
    turns, threads = Turns(), set()
    submit = LongCalls.submit

    def spy(calls: LongCalls, function: Callable[[], Any]) -> Future[Any]:
        def call() -> Any:
            threads.add(threading.get_ident())
            # Without the GIL it could be sent before the loop awaits it.
            eventually(lambda: turns.count >= 1, what="the loop has a turn meanwhile")
            return function()

        return submit(calls, call)

    monkeypatch.setattr(LongCalls, "submit", spy)

    async def main() -> None:
        own_websocket.set(live.websocket if own else None)
        assert await beside(turns, live.websocket.asend(LARGE)) is True
        assert await live.websocket.asend("small") is True

    received: list[Any] = []
    reader = threading.Thread(
        target=lambda: received.extend(live.client.receive() for _ in range(2))
    )
    reader.start()
    asyncio.run(main())
    reader.join(60)
    assert received == [LARGE, "small"]
    assert threads
    assert threading.get_ident() not in threads


@pytest.mark.parametrize(
    ("own", "room"), [(True, 8 * SIZE), (True, SIZE), (False, 8 * SIZE)], ids=str
)
def test_order_of_tasks(open_websocket: Open, own: bool, room: int) -> None:
    """Messages arrive in the order in which tasks have sent them, large or small."""
    messages = ["first", LARGE, "second", LARGE[1:], b"third", "fourth"]
    live = open_websocket(send_buffer=room, text_type=str)

    async def main() -> None:
        own_websocket.set(live.websocket if own else None)
        for _ in range(3):
            tasks = [asyncio.create_task(live.websocket.asend(message)) for message in messages]
            assert await asyncio.gather(*tasks) == [True] * len(messages)

    received: list[Any] = []
    reader = threading.Thread(
        target=lambda: received.extend(live.client.receive() for _ in range(3 * len(messages)))
    )
    reader.start()
    asyncio.run(main())
    reader.join(60)
    assert received == 3 * messages


def test_sending_to_an_end(live: LiveWebSocket) -> None:
    """As any other message."""

    async def main() -> bool:
        own_websocket.set(live.websocket)
        return await live.websocket.asend(LARGE)

    live.client.close()
    # Nothing is taken any more: the connection is `closed` a moment before.
    eventually(lambda: live.connection.waiting() == (0, True))
    assert asyncio.run(main()) is False


class TestFairLock:
    """For tasks, whichever loop they run in."""

    def test_cancelled_ones_pass_it_on(self) -> None:
        """Those that wait, and one that has just got it."""
        lock, order = long_calls.FairLock(), []

        async def take(number: int) -> None:
            async with lock:
                order.append(number)
                await asyncio.sleep(0)

        async def main() -> None:
            async with lock:
                tasks = [asyncio.create_task(take(number)) for number in range(4)]
                await asyncio.sleep(0)
                tasks[1].cancel()
            # It has been notified, and has not run yet.
            tasks[0].cancel()
            await asyncio.wait(tasks)

        asyncio.run(main())
        assert order == [2, 3]
        assert not lock.is_held

    def test_tasks_of_several_loops(self) -> None:
        """One at a time; a loop that was closed in the meantime is left out."""
        lock, inside, most = long_calls.FairLock(), 0, 0

        async def take() -> None:
            nonlocal inside, most
            for _ in range(50):
                async with lock:
                    inside += 1
                    most = max(most, inside)
                    await asyncio.sleep(0)
                    inside -= 1

        async def main() -> None:
            await asyncio.gather(*(take() for _ in range(3)))

        async def hold() -> None:
            await lock.__aenter__()

        asyncio.run(hold())
        closed = asyncio.new_event_loop()
        waits = closed.create_task(take())
        closed.run_until_complete(asyncio.sleep(0))
        closed.close()
        lock._pass_on()
        threads = [threading.Thread(target=lambda: asyncio.run(main())) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert (most, inside, lock.is_held) == (1, 0, False)
        assert not waits.done()


class TestLongCalls:
    """The threads for that."""

    def test_as_many_threads_as_allowed(self) -> None:
        """All calls are made, in their order, by no more threads than that."""
        calls, lock = LongCalls(2), threading.Lock()
        running, most, order = 0, 0, []
        pair = threading.Barrier(2, timeout=60)

        def call(number: int) -> int:
            nonlocal running, most
            with lock:
                running += 1
                most = max(most, running)
                order.append(number)
            pair.wait()
            with lock:
                running -= 1
            return number

        futures = [calls.submit(partial(call, number)) for number in range(10)]
        assert [future.result(60) for future in futures] == [*range(10)]
        assert most == 2
        assert [number // 2 for number in order] == sorted(number // 2 for number in order)
        eventually(lambda: calls._left == 2, what="the threads have ended")

    def test_exception(self) -> None:
        """It reaches the caller, and the next call is made."""
        calls = LongCalls(1)
        failed = calls.submit(lambda: 1 // 0)
        with pytest.raises(ZeroDivisionError):
            failed.result(10)
        assert calls.submit(lambda: 1).result(10) == 1

    def test_system_that_gives_no_thread(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Then the caller's own thread does it."""

        def refuse(name: str, target: object) -> None:
            raise RuntimeError("can't start new thread")

        monkeypatch.setattr(unpatched, "start_thread", refuse)
        calls = LongCalls(1)
        assert calls.submit(threading.get_ident).result(10) == threading.get_ident()
        assert calls._left == 1

    def test_cancelled_while_it_is_under_way(self) -> None:
        """It ends first: a message that is sent next must not overtake it."""
        began, go_on = threading.Event(), threading.Event()

        def call() -> None:
            began.set()
            go_on.wait(60)

        async def main() -> None:
            task = asyncio.create_task(long_calls.call_elsewhere(call))
            await asyncio.to_thread(began.wait, 60)
            task.cancel()
            for _ in range(SOME_TURNS):
                await asyncio.sleep(0)
            assert not task.done()
            go_on.set()
            await asyncio.wait([task])
            assert task.cancelled()

        asyncio.run(main())

    @pytest.mark.parametrize("library", ["gevent", "eventlet"])
    def test_green_one_whose_time_is_up_while_it_is_under_way(self, library: str) -> None:
        """As a task that is cancelled."""
        if find_spec(library) is None:
            pytest.skip(f"{library} is not installed")
        code = f"""
            import threading
            from django.conf import settings
            settings.configure()
            from dwebsocket.runners.{library} import RUNNER
            import {library}

            over = threading.Event()
            {library}.spawn(lambda: [{library}.sleep(0.1), over.set()])
            order = []
            try:
                with {library}.Timeout(0.01):
                    RUNNER.waiter._call_elsewhere(lambda: over.wait(60) and order.append("call"))
            except {library}.Timeout:
                order.append("next")
            print(*order)
        """
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", textwrap.dedent(code)],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (done.stdout, done.stderr) == ("call next\n", "")

    def test_cancelled_call(self) -> None:
        """One that has not begun is not made."""
        calls, go_on, made = LongCalls(1), threading.Event(), []
        first = calls.submit(go_on.wait)
        second = calls.submit(lambda: made.append(2))
        assert second.cancel()
        go_on.set()
        assert first.result(10) is True
        assert calls.submit(lambda: 3).result(10) == 3
        assert made == []

    @pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
    def test_forked_child(self) -> None:
        """It begins with threads of its own."""
        before = long_calls._calls
        child = os.fork()
        if not child:
            os._exit(long_calls._calls is before)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


_WITHOUT_MEMORY = """
import os, pathlib, resource, sys
from dwebsocket import _core

SIZE = 64 * 1024 * 1024
groups, history = _core.Groups("close"), _core.History.in_memory(4 * SIZE)
mailbox = _core.Mailbox(4 * SIZE, _core.Hub(), 1)
groups.join("room", mailbox, bytes(16))
kind, what = sys.argv[1:]
history.record(groups, "room", "x" * SIZE if kind == "text" else bytes(SIZE), [], (9, 60.0))
while not groups.statistics()["delivered"]:
    os.sched_yield()
message = mailbox.pop
if what == "history":
    assert history.read(groups, "room", None, (9, 60.0), None)[1]
    # The engine makes one copy, and has memory for it.
    room, message = SIZE + SIZE // 2, lambda: history.read(groups, "room", None, (9, 60.0), None)
else:
    room = SIZE // 2
taken = int(pathlib.Path("/proc/self/statm").read_text().split()[0]) * 4096
resource.setrlimit(resource.RLIMIT_AS, (taken + room, -1))
try:
    message()
except MemoryError:
    print("MemoryError")
"""


@pytest.mark.parametrize("kind", ["text", "bytes"])
@pytest.mark.parametrize("what", ["history", "mailbox"])
def test_without_memory(what: str, kind: str) -> None:
    """A message of a group that finds none raises MemoryError."""
    command = [sys.executable, "-c", _WITHOUT_MEMORY, kind, what]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.stderr, done.returncode) == ("MemoryError\n", "", 0)
