"""
Code that is synchronised by hand, with threads that switch as often as possible.

Each test names the race that would lose something, or count it twice. The engine's own are in
`tests/rust`, the pool's of view threads in `test_runners_thread.py`.
"""

from __future__ import annotations

import asyncio
import random
import sys
import threading
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextvars import Context
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from test_servers_asgi import Wire, in_loop, until
from test_tls_pump import Line, carrier

from dwebsocket import WebSocket, conf
from dwebsocket.api.base import own_websocket
from dwebsocket.api.close_callbacks import CloseCallbacks
from dwebsocket.api.decision import Decision, Rejection
from dwebsocket.api.waiting import loop_hub
from dwebsocket.api.waiting.caller import Callers
from dwebsocket.runners.loop import BackgroundLoop
from dwebsocket.users import registry
from dwebsocket.users.registry import Visitor, Who

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from dwebsocket.servers import tls_pump

__all__ = ["carrier"]

# How long each test tries to meet its race.
TIME_S = 1.0
# Nothing here takes this long unless a thread or task was not woken.
LIMIT_S = 100.0
THREADS = 4
ROUNDS = 300


@pytest.fixture(autouse=True)
def _restless() -> Iterator[None]:
    """Threads take turns as often as the interpreter can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def side_by_side(*bodies: Callable[[], Any]) -> list[Any]:
    """Run each body on a thread of its own, all from the same moment on; give what they return."""
    start = threading.Barrier(len(bodies))

    def run(body: Callable[[], Any]) -> Any:
        start.wait(LIMIT_S)
        return body()

    with ThreadPoolExecutor(len(bodies)) as pool:
        futures = [pool.submit(run, body) for body in bodies]
        return [future.result(LIMIT_S) for future in futures]


def in_rounds(body: Callable[[int], object], between: Callable[[], None]) -> None:
    """Run `body` on all threads at once, again and again, with `between` before and after each."""
    meet = threading.Barrier(THREADS, between)

    def work(number: int) -> None:
        for _ in range(ROUNDS):
            meet.wait(LIMIT_S)
            body(number)
        meet.wait(LIMIT_S)

    side_by_side(*(partial(work, number) for number in range(THREADS)))


def test_an_event_is_noticed_whenever_it_happens() -> None:
    """`LoopEvent`: it is set between the task's look and its sleep."""
    events: deque[loop_hub.LoopEvent] = deque()
    stop = threading.Event()

    def set_all() -> None:
        while not stop.is_set():
            try:
                events.popleft().set()
            except IndexError:
                time.sleep(0)

    async def main() -> None:
        deadline = time.monotonic() + TIME_S
        while time.monotonic() < deadline:
            event = loop_hub.LoopEvent()
            events.append(event)
            assert await event.wait(LIMIT_S)

    setter = threading.Thread(target=set_all)
    setter.start()
    try:
        start = time.monotonic()
        asyncio.run(main())
        # Not by the time that was up.
        assert time.monotonic() - start < LIMIT_S
    finally:
        stop.set()
        setter.join(LIMIT_S)


def test_a_view_decides_once() -> None:
    """`Decision`: threads of a view decide at once; exactly one decision counts."""
    outcomes = [Rejection(400 + number) for number in range(THREADS)]
    decisions: list[Decision[threading.Event]] = []
    first: list[Rejection] = []

    def decide(number: int) -> None:
        if decisions[-1].decide(outcomes[number]):
            first.append(outcomes[number])

    def one_has_decided() -> None:
        if decisions:
            assert first == [decisions[-1].take_outcome()]
        first.clear()
        decisions.append(Decision(threading.Event(), threading.Event(), is_async=False, offered=()))

    in_rounds(decide, one_has_decided)


class TestFirstUse:
    """A WebSocket makes some objects on first use: if two threads do so, one object stays."""

    @pytest.fixture
    def meet(self) -> threading.Barrier:
        """Both threads wait here, with what they have made."""
        return threading.Barrier(2, timeout=LIMIT_S)

    def test_callbacks(self, meet: threading.Barrier, monkeypatch: pytest.MonkeyPatch) -> None:
        """`on_close`: none is lost."""
        websocket = WebSocket()

        def make(name: str) -> CloseCallbacks:
            meet.wait()
            return CloseCallbacks(name)

        monkeypatch.setattr("dwebsocket.api.ending.CloseCallbacks", make)
        side_by_side(*2 * [partial(websocket.on_close, print)])
        assert websocket._close_callbacks is not None
        assert len(websocket._close_callbacks._waiting) == 2

    def test_callers(self, meet: threading.Barrier, monkeypatch: pytest.MonkeyPatch) -> None:
        """`_caller`: each thread has the same one again."""
        websocket = WebSocket()

        def make() -> Callers:
            meet.wait()
            return Callers()

        def is_known() -> bool:
            caller = websocket._caller()
            meet.wait()
            return websocket._caller() is caller

        monkeypatch.setattr("dwebsocket.api.base.Callers", make)
        assert side_by_side(is_known, is_known) == [True, True]

    def test_name(self, meet: threading.Barrier, monkeypatch: pytest.MonkeyPatch) -> None:
        """`str(websocket)`: both get the same one."""

        class Numbers:
            def __next__(self) -> int:
                return meet.wait()

        monkeypatch.setattr("dwebsocket.api.base._early_names", Numbers())
        first, second = side_by_side(*2 * [partial(str, WebSocket())])
        assert first == second


def knock(who: Who) -> Visitor | str | None:
    """Enter a visitor, unless there are too many."""
    websocket: Any = None
    return registry.enter(who, websocket, conf.Admission.current())


def enter() -> Visitor:
    """Enter a visitor that must be let in."""
    visitor = knock(Who("192.0.2.1", "7"))
    assert isinstance(visitor, Visitor)
    return visitor


@pytest.mark.parametrize(
    "hold",
    [lambda _: registry.present("user", "7"), lambda _: enter().leave(), Visitor.leave],
    ids=["look", "enter", "leave"],
)
def test_visitor_that_leaves_is_forgotten_although_the_register_is_busy(
    monkeypatch: pytest.MonkeyPatch, hold: Callable[[Visitor], object]
) -> None:
    """`presence`: a visitor leaves while another thread has the lock; that one removes it."""
    first, late = enter(), [enter()]
    lock = registry._register.lock

    class Lock:
        """The register's, but a visitor leaves just before it is released."""

        def acquire(self, *, blocking: bool = True) -> bool:
            return lock.acquire(blocking)

        def release(self) -> None:
            if late:
                late.pop().leave()
            lock.release()

        def __enter__(self) -> None:
            self.acquire()

        def __exit__(self, *_: object) -> None:
            self.release()

    monkeypatch.setattr(registry._register, "lock", Lock())
    hold(first)
    left = len(registry._register.visitors.get(("user", "7"), ()))
    first.leave()
    assert (left, late) == (hold is not Visitor.leave, [])
    assert registry._register.visitors == {}


def test_a_limit_holds_when_many_come_at_once(override: Callable[..., None]) -> None:
    """`presence`: two that take the last place."""
    override(WEBSOCKET_MAX_CONNECTIONS_PER_ADDRESS=2)
    here: list[Visitor | str | None] = []

    def come(_: int) -> None:
        here.append(knock(Who("192.0.2.1")))

    def two_came() -> None:
        let_in = [visitor for visitor in here if isinstance(visitor, Visitor)]
        assert len(let_in) == min(2, len(here))
        here.clear()
        for visitor in let_in:
            visitor.leave()

    in_rounds(come, two_came)


@in_loop
async def test_a_message_finds_the_thread_that_does_not_give_up() -> None:
    """`Carriage`: others give up at the moment when it wakes one of them."""
    wire = Wire()

    def take(timeout: float) -> object:
        return wire.connection.take(timeout, text_as_bytes=False)

    deadline = time.monotonic() + TIME_S
    while time.monotonic() < deadline:
        patient = asyncio.create_task(asyncio.to_thread(take, LIMIT_S))
        impatient = [asyncio.to_thread(take, random.random() / 1000) for _ in range(2)]
        others = asyncio.gather(*impatient)
        await asyncio.sleep(random.random() / 1000)
        wire.put("for one")
        if any(await others):
            wire.put("for the last")
        assert await patient
    wire.disconnect()
    await wire.serving


@in_loop
async def test_an_asgi_connection_loses_nothing_between_threads_and_tasks() -> None:
    """`Carriage`: a full inbox stops and goes on, a full outbox too, all the time."""
    wire = Wire(send_buffer=50, receive_buffer=10)
    taken: list[str] = []
    count = 2000

    def take_on_a_thread() -> None:
        while True:
            _, ended = wire.connection.waiting()
            message = wire.connection.take(random.random() / 1000, text_as_bytes=False)
            if message is not None:
                taken.append(str(message))
                wire.connection.send(message, timeout=LIMIT_S)
            elif ended:
                return

    async def take_in_a_task() -> None:
        # As in its view: other senders would find a full outbox, and close the connection.
        own_websocket.set(wire.websocket)
        async for message in wire.websocket:
            taken.append(str(message))
            await wire.websocket.asend(message)

    takers = [asyncio.to_thread(take_on_a_thread) for _ in range(2)]
    everybody = asyncio.gather(*takers, take_in_a_task())
    for number in range(count):
        wire.put(str(number))
    await until(lambda: len(wire.said()) == count)
    wire.disconnect()
    await everybody
    await wire.serving
    numbers = [str(number) for number in range(count)]
    assert sorted(taken, key=int) == sorted(wire.said(), key=int) == numbers


def test_a_loop_starts_every_task_and_knows_when_it_is_quiet() -> None:
    """`BackgroundLoop`: tasks come from many threads while another waits for the last to end."""
    background = BackgroundLoop()
    done: list[int] = []

    async def work() -> None:
        await asyncio.sleep(0)
        done.append(1)

    def start() -> None:
        for _ in range(200):
            background.run("work", work, Context())

    def join() -> bool:
        return all(background.join(LIMIT_S) for _ in range(50))

    *_, quiet = side_by_side(*[start] * THREADS, join)
    assert quiet
    assert background.dismiss(LIMIT_S)
    assert len(done) == 200 * THREADS


@pytest.mark.parametrize("threads", [1, THREADS])
def test_a_pump_serves_each_pipe_that_is_brought(carrier: tls_pump.Pump, threads: int) -> None:
    """`Pump`: a pipe arrives while the pump's thread, having looked, begins to wait."""
    deadline = time.monotonic() + TIME_S

    def talk() -> None:
        while time.monotonic() < deadline:
            line = Line(carrier).open()
            line.client.sendall(b"?")
            assert line.engine.recv(1) == b"?"
            line.client.close()
            line.engine.close()

    side_by_side(*[talk] * threads)
    carrier.settle(LIMIT_S)
