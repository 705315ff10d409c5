"""The tasks of handlers' turns in an event loop: shared by those that wait for nothing."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import weakref
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from dwebsocket.api.waiting import loop_hub
from dwebsocket.runners.handler_context import HandlerContext
from dwebsocket.runners.handler_loop import LoopHome
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    Work = Callable[[], Awaitable[None]]

room: contextvars.ContextVar[str] = contextvars.ContextVar("room")


def plan_of(name: str) -> Any:
    """Make the facts of a class of handlers."""
    return SimpleNamespace(name=name, has_waited=False)


def handler(work: Work, plan: Any, in_room: str = "lobby") -> Any:
    """Make something that has turns."""
    own = contextvars.Context()
    own.run(room.set, in_room)

    async def turn() -> None:
        await work()

    its_context = HandlerContext(own, is_shared=False)
    return SimpleNamespace(_plan=plan, _context=its_context, _aturn=turn, _wake=lambda: None)


def run(*steps: Callable[[LoopHome], Any]) -> LoopHome:
    """Call each with the home of a loop, which has time for all turns after it."""

    async def main() -> LoopHome:
        home = LoopHome.current(is_background=False)
        for step in steps:
            step(home)
            for _ in range(10):
                await asyncio.sleep(0)
        return home

    return asyncio.run(main())


def test_turns_that_wait_for_nothing_share_a_task_and_no_context() -> None:
    """Each finds what its own request has set, whatever the others have set meanwhile."""
    seen: list[Any] = []
    plan = plan_of("Quick")

    async def work() -> None:
        seen.append((room.get(), weakref.ref(asyncio.current_task())))
        room.set("changed")

    made = [handler(work, plan, name) for name in "abab"]
    # Twice: nor is anything left for the next turn of the same handler.
    home = run(*2 * [lambda home: [home.have_turn(each) for each in made]])
    assert [name for name, _ in seen] == [*"abab"] * 2
    assert len({id(task) for _, task in seen[:4]}) == 1
    assert seen[0][1] is not seen[4][1]
    assert not home._tasks


def test_a_turn_that_waits_holds_up_no_other_one() -> None:
    """It keeps its task, with the name of its class; the others have another one."""
    seen: list[Any] = []
    may_end = asyncio.Event()

    async def slow() -> None:
        before = asyncio.current_task()
        await may_end.wait()
        seen.append(("slow", room.get(), before is asyncio.current_task(), before.get_name()))  # type: ignore[union-attr]

    async def quick() -> None:
        seen.append("quick")

    slow_plan, quick_plan = plan_of("Slow"), plan_of("Quick")

    def begin(home: LoopHome) -> None:
        for each in (handler(slow, slow_plan, "a"), handler(quick, quick_plan)):
            home.have_turn(each)

    def end(home: LoopHome) -> None:
        assert seen == ["quick"]
        assert slow_plan.has_waited
        assert not quick_plan.has_waited
        (turn,) = home.turns
        assert turn.cr_frame is not None  # type: ignore[attr-defined]
        may_end.set()

    home = run(begin, end)
    assert seen == ["quick", ("slow", "a", True, "Slow")]
    assert not home.turns


def test_each_turn_of_a_class_whose_turns_wait_has_a_task_of_its_own() -> None:
    """Until one does not wait."""
    seen: list[Any] = []
    plan = plan_of("Now and then")
    waits = True

    async def work() -> None:
        seen.append(weakref.ref(asyncio.current_task()))
        if waits:
            await asyncio.sleep(0)

    made = [handler(work, plan) for _ in range(3)]

    def have_turns(home: LoopHome) -> None:
        for each in made:
            home.have_turn(each)

    def stop_waiting(home: LoopHome) -> None:
        nonlocal waits
        waits = False
        have_turns(home)

    run(have_turns, have_turns, stop_waiting, have_turns)
    tasks = [len({*map(id, seen[at : at + 3])}) for at in range(0, 12, 3)]
    assert tasks == [3, 3, 3, 1]


@pytest.mark.parametrize("waits", [False, True], ids=["at once", "after a wait"])
def test_an_error_is_of_one_turn(waits: bool) -> None:
    """The loop is told of it, as of any task, and the others have their turns."""
    seen: list[Any] = []

    async def fails() -> None:
        if waits:
            await asyncio.sleep(0)
        raise RuntimeError("broken")

    async def quick() -> None:
        seen.append("quick")

    def begin(home: LoopHome) -> None:
        asyncio.get_running_loop().set_exception_handler(
            lambda _, told: seen.append(str(told["exception"]))
        )
        plan = plan_of("Any")
        for work in (quick, fails, quick):
            home.have_turn(handler(work, plan))

    run(begin, lambda _: gc.collect())
    assert sorted(seen) == ["broken", "quick", "quick"]


def test_a_cancellation_reaches_no_other_turn() -> None:
    """One that cancels its own task and waits for nothing has ended by the time of its effect."""
    seen: list[Any] = []

    async def cancels() -> None:
        asyncio.current_task().cancel()  # type: ignore[union-attr]

    async def waits() -> None:
        await asyncio.sleep(0)
        seen.append("waited")

    def begin(home: LoopHome) -> None:
        plan = plan_of("Any")
        for work in (cancels, waits):
            home.have_turn(handler(work, plan))

    run(begin)
    assert seen == ["waited"]


def test_a_late_cancellation_reaches_no_other_turn() -> None:
    """By a timer that a turn has left behind, for instance."""
    seen: list[str] = []
    kept: list[Any] = []

    async def keeps() -> None:
        kept.append(asyncio.current_task())

    async def waits() -> None:
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        seen.append("waited")

    def begin(home: LoopHome) -> None:
        for work in (keeps, waits, keeps, waits):
            home.have_turn(handler(work, plan_of(work.__name__)))
        loop = asyncio.get_running_loop()
        loop.call_soon(lambda: loop.call_soon(lambda: [each.cancel() for each in kept]))

    run(begin)
    assert len(kept) == 2
    assert seen == ["waited", "waited"]


def test_a_cancellation_reaches_the_turn_that_waits() -> None:
    """In its own context; it may go on, wait again and return."""
    seen: list[Any] = []

    async def waits() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError as error:
            seen.append((room.get(), str(error)))
        await asyncio.sleep(0)
        seen.append(room.get())

    home = run(
        lambda home: home.have_turn(handler(waits, plan_of("Slow"), "a")),
        lambda home: [task.cancel("enough") for task in home._tasks],
    )
    assert seen == [("a", "enough"), "a"]
    assert not home.turns


def test_turns_of_a_task_that_was_cancelled_before_it_began_come_all_the_same() -> None:
    """And so do those that are announced later."""
    seen: list[str] = []

    async def quick() -> None:
        seen.append(room.get())

    def begin(home: LoopHome) -> None:
        home.have_turn(handler(quick, plan_of("Quick"), "a"))
        for task in home._tasks:
            task.cancel()

    run(begin, lambda home: home.have_turn(handler(quick, plan_of("Quick"), "b")))
    assert seen == ["a", "b"]


def test_a_turn_that_waits_is_closed_with_its_loop() -> None:
    """In its own context, so that it can release what it has."""
    seen: list[Any] = []

    async def waits() -> None:
        try:
            await asyncio.get_running_loop().create_future()
        except GeneratorExit:
            seen.append(room.get())
            raise

    async def main() -> None:
        home = LoopHome.current(is_background=False)
        home.have_turn(handler(waits, plan_of("Slow"), "a"))
        for _ in range(3):
            await asyncio.sleep(0)

    # In which order coroutines of one cycle end depends on collections before, and while another
    # thread collects this one does nothing.
    gc.disable()
    try:
        loop = asyncio.new_event_loop()
        loop.set_exception_handler(lambda *_: None)
        loop.run_until_complete(main())
        loop.close()
        del loop
        loop_hub.forget_closed()
        eventually(lambda: gc.collect() >= 0 and seen)
    finally:
        gc.enable()
    assert seen == ["a"]
