"""Light threads for views."""

from __future__ import annotations

import os
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from dwebsocket.runners import thread
from dwebsocket.runners.thread import ThreadPool
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture
def pool(monkeypatch: pytest.MonkeyPatch) -> Iterator[ThreadPool]:
    """A pool whose threads go soon."""
    monkeypatch.setattr(thread, "_LINGER_S", 0.05)
    pool = ThreadPool()
    yield pool
    # Some would not go by themselves: on Python 3.10 a `SimpleQueue` forgets a very short timeout
    # now and then, and waits for the next job.
    assert pool.dismiss(10)
    assert not pool._idle


def call(pool: ThreadPool, job: Callable[[], Any], name: str = "a view") -> Any:
    """Run a job on a thread and give what it returns."""
    done = threading.Event()
    results: list[Any] = []

    def note() -> None:
        results.append(job())
        done.set()

    pool.run(name, note)
    assert done.wait(10)
    return results[0]


def test_runs_jobs_side_by_side(pool: ThreadPool) -> None:
    """Each on a thread of its own, however many."""
    barrier = threading.Barrier(20)
    for _ in range(20):
        pool.run("one of many", lambda: barrier.wait(10))  # type: ignore[arg-type, return-value]
    assert pool.join(10)
    assert not barrier.broken


def test_idle_threads_can_be_dismissed(pool: ThreadPool, monkeypatch: pytest.MonkeyPatch) -> None:
    """At once; those with a view stay, and the next views get new ones."""
    monkeypatch.setattr(thread, "_LINGER_S", 60)
    goes_on = threading.Event()
    pool.run("busy", lambda: goes_on.wait(10) and None)
    idle = call(pool, threading.current_thread)
    eventually(lambda: len(pool._idle) == 1, what="an idle thread")
    assert not pool.dismiss(0.01)
    assert not idle.is_alive()
    goes_on.set()
    assert pool.dismiss(10)
    assert call(pool, threading.current_thread) is not idle
    assert pool.dismiss(10)


def test_thread_bears_the_views_name(pool: ThreadPool) -> None:
    """While it runs, and another one's later."""
    assert call(pool, lambda: threading.current_thread().name, "chat.views.room") == (
        "chat.views.room"
    )
    assert call(pool, lambda: threading.current_thread().name, "other") == "other"


def test_thread_does_not_hold_the_process(pool: ThreadPool) -> None:
    """A view may go on for ever."""
    assert call(pool, lambda: threading.current_thread().daemon) is True


def test_thread_is_used_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy site starts few threads."""
    monkeypatch.setattr(thread, "_LINGER_S", 10)
    pool = ThreadPool()
    threads = set()
    for _ in range(5):
        threads.add(call(pool, threading.get_ident))
        assert pool.join(10)
    assert len(threads) == 1
    idle = [t for t in threading.enumerate() if t.ident in threads]
    assert [t.name for t in idle] == ["dwebsocket-idle"]


def test_idle_thread_leaves(pool: ThreadPool) -> None:
    """After a moment without work."""
    ident = call(pool, threading.get_ident)
    eventually(lambda: ident not in [t.ident for t in threading.enumerate()])


def test_idle_thread_holds_nothing_of_its_last_view(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a connection would live until the next view."""
    import weakref

    class Thing:
        pass

    monkeypatch.setattr(thread, "_LINGER_S", 10)
    pool = ThreadPool()
    thing = Thing()
    gone = weakref.ref(thing)

    def job(thing: Thing = thing) -> None:
        assert thing is not None

    pool.run("holds", job)
    del job, thing
    assert pool.join(10)
    eventually(lambda: gone() is None, within=5)


def test_stack_has_the_size_of_the_setting(
    pool: ThreadPool, override: Any, monkeypatch: pytest.MonkeyPatch
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


def test_system_that_gives_no_thread(pool: ThreadPool, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_job_that_raises(
    pool: ThreadPool, monkeypatch: pytest.MonkeyPatch, request_log: Any
) -> None:
    """Is logged; the thread goes on, and nobody waits for the job for ever."""
    monkeypatch.setattr(thread, "_LINGER_S", 10)

    def job() -> None:
        raise ValueError("not even the runner saw this")

    pool.run("broken", job)
    assert pool.join(10)
    (record,) = request_log("dwebsocket")
    assert "not even the runner saw this" in str(record.exc_info[1])
    monkeypatch.setattr(thread, "_LINGER_S", 0.01)
    assert call(pool, lambda: "next") == "next"


def test_join_waits_for_running_jobs(pool: ThreadPool) -> None:
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
    assert ThreadPool().join(60) is True
    assert time.monotonic() - begun < 1


def test_database_connections_go_with_the_thread(
    pool: ThreadPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread that leaves holds none."""
    closed: list[int] = []
    connections = type("Connections", (), {"close_all": lambda: closed.append(1)})
    monkeypatch.setattr(thread, "connections", connections)
    call(pool, lambda: None)
    eventually(lambda: closed == [1])


def test_many_short_jobs_lose_none(pool: ThreadPool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads leave and are taken up again at the same time."""
    monkeypatch.setattr(thread, "_LINGER_S", 0)
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
