"""How event loops wait for connections."""

from __future__ import annotations

import asyncio
import gc
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from contextvars import ContextVar
from typing import Any
from weakref import ref

import pytest
import uvloop
from peer import LiveWebSocket
from visit import descriptors

from dwebsocket import ReceiveTimeout
from dwebsocket.api.waiting import loop_hub
from dwebsocket.api.waiting.green import HubWatcher
from support.waiting import eventually

Open = Callable[..., LiveWebSocket]


class WithoutReaders(asyncio.SelectorEventLoop):
    """As the loop that Python uses on Windows, which watches no descriptors."""

    def add_reader(self, *_: Any) -> None:
        """Fail."""
        raise NotImplementedError

    def close(self) -> None:
        """End the task of the hub first: else its socket stays open until it is collected."""
        if (hub := loop_hub._hubs.get(self)) is not None:
            hub._listening.cancel()
            self.run_until_complete(asyncio.sleep(0))
        super().close()


def test_one_hub_serves_a_loop() -> None:
    """A loop has one hub, another loop another."""

    async def mine() -> loop_hub.LoopHub:
        assert loop_hub.current() is loop_hub.current()
        return loop_hub.current()

    assert asyncio.run(mine()) is not asyncio.run(mine())


def test_keeps_nothing_of_the_first_view() -> None:
    """Values of its context variables go with it, not with the loop."""

    class Value:
        pass

    variable: ContextVar[Value] = ContextVar("variable")

    async def first() -> ref[Value]:
        variable.set(value := Value())
        loop_hub.current()
        return ref(value)

    async def main() -> None:
        value = await asyncio.create_task(first())
        # The callback that goes on here still holds the task.
        await asyncio.sleep(0)
        gc.collect()
        assert value() is None

    asyncio.run(main())


@pytest.mark.parametrize("make", [asyncio.SelectorEventLoop, WithoutReaders])
def test_wakes_all_that_wait(
    open_websocket: Open, make: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    """Many connections on one loop are woken, each for its own message."""
    lives = [open_websocket() for _ in range(20)]

    async def main() -> list[Any]:
        tasks = [asyncio.create_task(live.websocket.areceive()) for live in lives]
        await asyncio.sleep(0)
        for number, live in enumerate(lives):
            live.client.send(str(number))
        return await asyncio.gather(*tasks)

    with closing(make()) as in_loop:
        assert in_loop.run_until_complete(main()) == [str(number) for number in range(20)]


def test_a_socket_that_is_collected_leaves_the_hub_its_descriptor() -> None:
    """It goes with a loop that is closed while its task still reads, in any order."""

    async def main() -> None:
        hub = loop_hub.current()
        await asyncio.sleep(0)
        frame: Any = hub._listening.get_coro().cr_frame  # type: ignore[union-attr]
        frame.f_locals["descriptor"].close()
        assert os.fstat(hub.core.fileno())

    with closing(WithoutReaders()) as loop:
        loop.run_until_complete(main())


def test_returns_when_the_time_is_up(open_websocket: Open) -> None:
    """A timeout ends the wait as a notification does, and leaves nothing behind."""
    live = open_websocket()

    async def main() -> None:
        await loop_hub.current().wait(live.connection, live.connection.watch_inbox, 0.001)
        assert loop_hub.current()._waiting == {}

    asyncio.run(main())


@pytest.mark.parametrize("timeout", [None, 60])
def test_a_cancellation_that_comes_with_the_message_is_not_lost(
    open_websocket: Open, timeout: float | None
) -> None:
    """The task ends as cancelled, and the message is there for the next one."""
    live = open_websocket()

    async def main() -> None:
        task = asyncio.create_task(live.websocket.areceive(timeout))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        live.client.send("kept")
        eventually(lambda: live.connection.waiting() == (1, False))
        task.cancel()
        loop_hub.current()._wake()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert loop_hub.current()._waiting == {}
        assert await live.websocket.areceive(0) == "kept"

    asyncio.run(main())


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_a_wait_is_cancelled_like_any_other(
    open_websocket: Open, new_loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    """By its task, by a time limit or with its group; the connection stays usable."""
    live = open_websocket()

    async def main() -> None:
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(live.websocket.areceive(), 0.001)
        reasons: list[tuple[object, ...]] = []

        async def receive() -> None:
            try:
                await live.websocket.areceive()
            except asyncio.CancelledError as error:
                reasons.append(error.args)
                raise

        for reason in ((), ("enough",)):
            task = asyncio.create_task(receive())
            await asyncio.sleep(0)
            task.cancel(*reason)
            with pytest.raises(asyncio.CancelledError):
                await task
        # anyio knows its own cancellations by that.
        assert reasons == [(), ("enough",)]
        live.client.send("hello")
        assert await asyncio.wait_for(live.websocket.areceive(), 10) == "hello"

    with closing(new_loop()) as loop:
        loop.run_until_complete(main())


def test_messages_are_asked_for_by_hand_too(open_websocket: Open) -> None:
    """`anext` is awaited as any other: with a time limit, by several tasks, and after the end."""
    live = open_websocket()

    async def main() -> None:
        messages = aiter(live.websocket)
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(anext(messages), 0.001)
        tasks = [asyncio.ensure_future(anext(messages)) for _ in range(3)]
        await asyncio.sleep(0)
        for text in ("a", "b", "c"):
            live.client.send(text)
        assert sorted(map(str, await asyncio.gather(*tasks))) == ["a", "b", "c"]
        live.client.send("last")
        live.client.close(4000)
        assert await anext(messages) == "last"
        for _ in range(2):
            assert await anext(messages, None) is None

    asyncio.run(main())


def test_iteration_is_cancelled_like_any_other_wait(open_websocket: Open) -> None:
    """The next iteration gets the messages that came meanwhile."""
    live = open_websocket()

    async def take_all(taken: list[Any]) -> None:
        async for message in live.websocket:
            taken.append(message)

    async def main() -> None:
        for text in ("first", "second"):
            taken: list[Any] = []
            task = asyncio.create_task(take_all(taken))
            await asyncio.sleep(0)
            live.client.send(text)
            while not taken:  # noqa: ASYNC110
                await asyncio.sleep(0)
            task.cancel()
            live.client.send("kept")
            eventually(lambda: live.connection.waiting() == (1, False))
            with pytest.raises(asyncio.CancelledError):
                await task
            assert taken == [text]
            assert await live.websocket.areceive() == "kept"

    asyncio.run(main())


def test_an_iteration_goes_on_in_another_loop(open_websocket: Open) -> None:
    """And in the first one again; each wait wakes the loop that it is in."""
    live = open_websocket()
    messages = aiter(live.websocket)

    async def take(text: str) -> None:
        task = asyncio.ensure_future(anext(messages))
        await asyncio.sleep(0)
        live.client.send(text)
        assert await asyncio.wait_for(task, 60) == text

    with closing(asyncio.new_event_loop()) as loop, closing(asyncio.new_event_loop()) as other:
        for number, each in enumerate((loop, other, other, loop)):
            each.run_until_complete(take(f"message {number}"))


def test_a_task_goes_on_in_its_own_context(open_websocket: Open) -> None:
    """Variables that it has set are there after the wait, and those of others are not."""
    lives = [open_websocket() for _ in range(2)]
    name: ContextVar[str] = ContextVar("name")

    async def view(own: str, live: LiveWebSocket) -> tuple[str, Any, asyncio.Task[Any] | None]:
        name.set(own)
        message = await live.websocket.areceive()
        return name.get(), message, asyncio.current_task()

    async def main() -> None:
        tasks = [
            asyncio.create_task(view(own, live)) for own, live in zip("ab", lives, strict=True)
        ]
        await asyncio.sleep(0)
        for live in lives:
            live.client.send("hello")
        for own, task in zip("ab", tasks, strict=True):
            assert await task == (own, "hello", task)

    asyncio.run(main())


def test_exception_that_ends_the_loop_does_not_take_the_others_turn(open_websocket: Open) -> None:
    """An exception that must not be kept in a task comes out; the other views go on afterwards."""
    lives = [open_websocket() for _ in range(2)]
    loop = asyncio.new_event_loop()

    async def leave() -> None:
        await lives[0].websocket.areceive()
        raise SystemExit(3)

    async def stay() -> str | bytes:
        return await lives[1].websocket.areceive()

    with closing(loop):
        leaver, stayer = loop.create_task(leave()), loop.create_task(stay())
        loop.run_until_complete(asyncio.sleep(0))
        for live in lives:
            live.client.send("hello")
            eventually(lambda live=live: live.connection.waiting() == (1, False))
        with pytest.raises(SystemExit):
            loop.run_until_complete(asyncio.sleep(10))
        assert loop.run_until_complete(asyncio.wait_for(stayer, 10)) == "hello"
        with pytest.raises(SystemExit):
            leaver.result()


def test_a_loop_that_is_closed_takes_its_waits_along(open_websocket: Open) -> None:
    """A task that still waited then is no leak."""
    live = open_websocket()
    loop = asyncio.new_event_loop()
    task = ref(loop.create_task(live.websocket.areceive()))
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    del loop
    loop_hub.forget_closed()
    gc.collect()
    assert task() is None


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
        assert loop_hub.current().core.drain() == []

    asyncio.run(main())


def test_a_token_of_a_waiter_that_left_is_ignored(open_websocket: Open) -> None:
    """A token whose waiter has gone does no harm to the others."""
    live = open_websocket()

    async def main() -> str | bytes:
        await loop_hub.current().wait(live.connection, live.connection.watch_inbox, 0)
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
        loop_hub.current()

    asyncio.run(use())
    gc.collect()
    before = descriptors()
    for _ in range(5):
        asyncio.run(use())
    gc.collect()
    assert descriptors() <= before


class Watcher(HubWatcher[Any]):
    """That of a hub which wakes nobody."""

    def call_later(self, delay: float, call: Callable[[], None]) -> Callable[[], None]:
        raise NotImplementedError

    def _sleep(self, token: int, timeout: float | None) -> None:
        raise NotImplementedError

    def _wake(self, token: int) -> None:
        raise LookupError(token)

    def close(self) -> None:
        raise NotImplementedError


def test_an_error_in_a_hub_of_green_threads_takes_no_wake_up_along() -> None:
    """The wake-ups that had come together with it come again."""
    watcher, called = Watcher(object()), list[str]()
    # A token that nobody waits for any more, and one with a call.
    watcher.core.announce(7_000)
    watcher.core.announce(watcher.call_on(lambda: called.append("end")))
    with pytest.raises(LookupError, match="7000"):
        watcher.on_wake()
    assert called == []
    watcher.on_wake()
    assert called == ["end"]


def test_an_error_in_the_hub_of_a_loop_takes_no_wake_up_along() -> None:
    """As there."""

    async def main() -> None:
        hub, called = loop_hub.current(), asyncio.Event()
        errors = list[Any]()
        asyncio.get_running_loop().set_exception_handler(lambda _, told: errors.append(told))

        def fail() -> None:
            raise LookupError

        hub.core.announce(hub.call_on(fail))
        hub.core.announce(hub.call_on(called.set))
        await asyncio.wait_for(called.wait(), 20)
        (told,) = errors
        assert isinstance(told["exception"], LookupError)

    asyncio.run(main())
