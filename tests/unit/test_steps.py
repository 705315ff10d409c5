"""Steps that are written once do the same on a thread and in a task."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Callable
from typing import Any, TypeVar

import pytest

from dwebsocket.api.waiting.steps import Call, Steps, arun, run

T = TypeVar("T")
Drive = Callable[[Steps[Any]], Any]


def drive_in_loop(steps: Steps[T]) -> T:
    """Run steps in a task of a loop of their own."""
    return asyncio.run(arun(steps))


@pytest.fixture(params=[run, drive_in_loop], ids=["thread", "task"])
def drive(request: Any) -> Drive:
    """Both ways to run steps."""
    return request.param  # type: ignore[no-any-return]


def double(number: int, *, plus: int = 0) -> int:
    """The form for threads."""
    if number < 0:
        raise ValueError("below 0")
    return 2 * number + plus


async def adouble(number: int, *, plus: int = 0) -> int:
    """The form for tasks, which really waits."""
    await asyncio.sleep(0)
    return double(number, plus=plus)


def four_times(number: int) -> Steps[int]:
    """Steps with two calls."""
    first: int = yield Call(double, adouble, number)
    second: int = yield Call(double, adouble, first, plus=1)
    return second - 1


def test_results_come_back(drive: Drive) -> None:
    """A call's result is what `yield` gives; the steps' result is what the caller gets."""
    assert drive(four_times(3)) == 12


def test_steps_may_need_no_call(drive: Drive) -> None:
    """Then they end at once."""

    def steps() -> Steps[str]:
        return "done"
        yield

    assert drive(steps()) == "done"


def test_steps_include_others(drive: Drive) -> None:
    """By `yield from`, whose result is theirs."""

    def steps() -> Steps[int]:
        first = yield from four_times(1)
        return (yield from four_times(first))

    assert drive(steps()) == 16


def test_steps_may_catch_what_a_call_raises(drive: Drive) -> None:
    """And go on with other calls, also to clean up."""

    def steps() -> Steps[int]:
        try:
            yield Call(double, adouble, -1)
        except ValueError:
            found: int = yield Call(double, adouble, 5)
        return found

    assert drive(steps()) == 10


def test_exception_has_the_line_of_the_steps_and_of_the_call(drive: Drive) -> None:
    """A traceback names both."""
    with pytest.raises(ValueError, match="below 0") as caught:
        drive(four_times(-1))
    names = [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
    assert names.index("four_times") < names.index("double")
    assert caught.value.__context__ is None


def test_call_that_raises_stop_iteration_does_not_end_steps(drive: Drive) -> None:
    """It is an error of the call, as in any generator."""

    def stop() -> None:
        raise StopIteration("a result?")

    async def astop() -> None:
        stop()

    def steps() -> Steps[str]:
        yield Call(stop, astop)
        return "the end"

    with pytest.raises(RuntimeError, match="raised StopIteration"):
        drive(steps())


def test_cancellation_is_raised_where_steps_wait() -> None:
    """They see it as a coroutine does, may wait while they clean up, and are cancelled."""
    seen: list[object] = []

    def steps() -> Steps[None]:
        try:
            yield Call(double, asyncio.sleep, 3600)  # type: ignore[arg-type]
        except BaseException as error:
            seen.append(type(error))
            raise
        finally:
            seen.append((yield Call(double, adouble, 1)))

    async def main() -> None:
        task = asyncio.ensure_future(arun(steps()))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert seen == [asyncio.CancelledError, 2]


def test_exit_within_a_call_cleans_up() -> None:
    """An exception of a signal's handler ends steps as it ends any code."""
    seen: list[object] = []

    def leave() -> None:
        raise SystemExit(3)

    async def aleave() -> None:
        leave()

    def steps() -> Steps[None]:
        try:
            yield Call(leave, aleave)
        except SystemExit as error:
            seen.append(error.code)
            raise

    with pytest.raises(SystemExit):
        run(steps())
    assert seen == [3]
