"""Calls that one thread makes as long as there are any."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from dwebsocket.compat import unpatched
from dwebsocket.compat.work_queue import WorkQueue

if TYPE_CHECKING:
    from collections.abc import Callable


class GreenletExit(BaseException):
    """An exception by which gevent ends a green thread, such as its copy in a forked child."""


@pytest.fixture
def threads(monkeypatch: pytest.MonkeyPatch) -> list[Callable[[], None]]:
    """Note what would run on a thread."""
    found: list[Callable[[], None]] = []
    monkeypatch.setattr(unpatched, "start_code", lambda name, work: found.append(work))
    return found


def fail(error: BaseException) -> None:
    """Raise it."""
    raise error


def test_each_call_waits_but_once(threads: list[Callable[[], None]]) -> None:
    """In the order in which they came, until it is made."""
    queue, made = WorkQueue("test"), []  # type: ignore[var-annotated]
    for number in (1, 2, 1):
        queue.add((made.append, number))
    (work,) = threads
    assert (len(queue), queue.is_working) == (2, True)
    work()
    assert (len(queue), queue.is_working) == (0, False)
    queue.add((made.append, 1))
    threads[1]()
    assert made == [1, 2, 1]


def test_a_failure_ends_nothing(
    threads: list[Callable[[], None]], caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged."""
    queue, made = WorkQueue("test"), []  # type: ignore[var-annotated]
    queue.add((fail, ZeroDivisionError("no")), (made.append, 1))
    threads[0]()
    assert (made, queue.is_working) == ([1], False)
    assert "The thread test could not make a call" in caplog.text


def test_the_end_of_a_green_thread(threads: list[Callable[[], None]]) -> None:
    """Ends it: in a forked child the calls are the parent's."""
    queue, made = WorkQueue("test"), []  # type: ignore[var-annotated]
    queue.add((fail, GreenletExit()), (made.append, 1))
    with pytest.raises(GreenletExit):
        threads[0]()
    assert made == []
