"""Light threads for views."""

from __future__ import annotations

import os
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from dwebsocket import database
from dwebsocket.runners import thread
from dwebsocket.runners.thread import ViewThreads
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture
def pool() -> Iterator[ViewThreads]:
    """The threads of one test."""
    pool = ViewThreads()
    yield pool
    assert pool.join(10)


def call(pool: ViewThreads, job: Callable[[], Any], name: str = "a view") -> Any:
    """Run a job on a thread and give what it returns."""
    done = threading.Event()
    results: list[Any] = []

    def note() -> None:
        results.append(job())
        done.set()

    pool.run(name, note)
    assert done.wait(10)
    return results[0]


def test_runs_jobs_side_by_side(pool: ViewThreads) -> None:
    """Each on a thread of its own, however many."""
    barrier = threading.Barrier(20)
    for _ in range(20):
        pool.run("one of many", lambda: barrier.wait(10))  # type: ignore[arg-type, return-value]
    assert pool.join(10)
    assert not barrier.broken


def test_thread_bears_the_views_name(pool: ViewThreads) -> None:
    """While it runs, and another one's later."""
    assert call(pool, lambda: threading.current_thread().name, "chat.views.room") == (
        "chat.views.room"
    )
    assert call(pool, lambda: threading.current_thread().name, "other") == "other"


def test_thread_does_not_hold_the_process(pool: ViewThreads) -> None:
    """A view may go on for ever."""
    assert call(pool, lambda: threading.current_thread().daemon) is True


def test_each_job_has_a_new_thread(pool: ViewThreads) -> None:
    """What one view leaves in a `threading.local` is gone before another begins."""
    local = threading.local()

    def visit() -> object:
        found = getattr(local, "user", None)
        local.user = "mia"
        return found

    for _ in range(5):
        assert call(pool, visit) is None
        assert pool.join(10)


def test_thread_leaves(pool: ViewThreads) -> None:
    """As soon as its job is done."""
    ident = call(pool, threading.get_ident)
    eventually(lambda: ident not in [t.ident for t in threading.enumerate()])


def test_nothing_is_held_of_a_job(pool: ViewThreads) -> None:
    """When whoever waits for all jobs goes on, a view and its connection are gone."""
    import weakref

    class Thing:
        pass

    thing = Thing()
    gone = weakref.ref(thing)

    def job(thing: Thing = thing) -> None:
        assert thing is not None

    pool.run("holds", job)
    del job, thing
    assert pool.join(10)
    assert gone() is None


def test_stack_has_the_size_of_the_setting(
    pool: ViewThreads, override: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For our threads only."""
    override(WEBSOCKET_THREAD_STACK_SIZE=512 * 1024)
    sizes: list[int] = []
    real = threading.stack_size

    def stack_size(size: int = 0) -> int:
        sizes.append(size)
        return real(size)

    before = real()
    monkeypatch.setattr(threading, "stack_size", stack_size)
    call(pool, lambda: None)
    assert sizes == [512 * 1024, before]
    assert real() == before


def test_system_that_gives_no_thread(pool: ViewThreads, monkeypatch: pytest.MonkeyPatch) -> None:
    """The caller is told, and nothing counts as running."""

    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    before = threading.stack_size()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError, match="can't start new thread"):
            pool.run("a view", lambda: None)
    assert threading.stack_size() == before
    assert pool.join(0)
    assert call(pool, lambda: "works again") == "works again"


def test_job_that_raises(pool: ViewThreads, request_log: Any) -> None:
    """Is logged, and nobody waits for the job for ever."""

    def job() -> None:
        raise ValueError("not even the runner saw this")

    pool.run("broken", job)
    assert pool.join(10)
    (record,) = request_log("dwebsocket")
    assert "not even the runner saw this" in str(record.exc_info[1])
    assert call(pool, lambda: "next") == "next"


def test_join_waits_for_running_jobs(pool: ViewThreads) -> None:
    """Up to its time."""
    go = threading.Event()
    pool.run("waits", lambda: go.wait(10))  # type: ignore[arg-type, return-value]
    assert pool.join(0) is False
    assert pool.join(-1) is False
    assert pool.join(0.01) is False
    go.set()
    assert pool.join(10) is True


def test_join_without_jobs_returns_at_once() -> None:
    """With no sockets open, exit is immediate."""
    begun = time.monotonic()
    assert ViewThreads().join(60) is True
    assert time.monotonic() - begun < 1


def test_database_connections_go_with_the_thread(
    pool: ViewThreads, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread that leaves holds none."""
    closed: list[int] = []
    monkeypatch.setattr(database, "leave", lambda: closed.append(threading.get_ident()))
    ident = call(pool, threading.get_ident)
    assert pool.join(10)
    assert closed == [ident]


def test_many_short_jobs_lose_none(pool: ViewThreads) -> None:
    """Threads leave and are started at the same time."""
    count = 500
    done = threading.Semaphore(0)
    for _ in range(count):
        pool.run("short", done.release)  # type: ignore[arg-type]
    for _ in range(count):
        assert done.acquire(timeout=10)


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_forked_child_starts_anew() -> None:
    """The parent's threads are not there, whatever the lists say."""
    go = threading.Event()
    thread.run("in the parent", lambda: go.wait(30))  # type: ignore[arg-type, return-value]
    child = os.fork()
    if child == 0:
        status = 1
        try:
            done = threading.Event()
            if thread.join(0):
                thread.run("in the child", done.set)
                status = 0 if done.wait(10) else 2
        finally:
            os._exit(status)
    go.set()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert thread.join(10)
