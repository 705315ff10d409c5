"""Light threads for views."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from dwebsocket import runners
from dwebsocket.request import database
from dwebsocket.runners import thread
from dwebsocket.runners.thread import ViewThreads
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType


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


def test_nothing_of_a_view_stays_in_its_thread(pool: ViewThreads) -> None:
    """Neither in a `threading.local` nor in the thread's object, though the thread is the same."""
    local = threading.local()
    numbers: list[int] = []

    def visit() -> tuple[object, object]:
        numbers.append(threading.get_native_id())
        thread = threading.current_thread()
        found = getattr(local, "user", None), getattr(thread, "user", None)
        local.user = thread.user = "mia"  # type: ignore[attr-defined]
        return found

    def is_reused() -> bool:
        assert call(pool, visit) == (None, None)
        assert pool.join(10)
        return numbers.count(numbers[-1]) > 1

    eventually(is_reused)


def test_what_a_thread_local_holds_is_freed(pool: ViewThreads) -> None:
    """Behind its view, and not when the thread ends."""
    import weakref

    class Thing:
        pass

    local = threading.local()

    def visit() -> weakref.ref[Thing]:
        local.thing = Thing()
        return weakref.ref(local.thing)

    thing = call(pool, visit)
    eventually(lambda: thing() is None)


def test_python_knows_a_thread_while_its_job_runs(pool: ViewThreads) -> None:
    """And no longer: such a list grows for months."""
    listed = call(pool, lambda: threading.current_thread() in threading.enumerate())
    assert listed is True
    assert pool.join(10)
    assert "a view" not in [each.name for each in threading.enumerate()]


def test_thread_without_a_job_ends(pool: ViewThreads) -> None:
    """After two seconds."""
    number = call(pool, threading.get_native_id)
    eventually(lambda: not Path(f"/proc/self/task/{number}").exists())


def test_debuggers_see_views(pool: ViewThreads) -> None:
    """As `threading.settrace` and `setprofile` promise it for all threads."""
    seen: list[str] = []

    def note(kind: str) -> Any:
        def trace(frame: FrameType, event: str, argument: object) -> None:
            seen.append(f"{kind} {frame.f_code.co_name}")

        return trace

    def view() -> None:
        pass

    threading.settrace(note("trace"))
    threading.setprofile(note("profile"))
    try:
        call(pool, view)
    finally:
        threading.settrace(None)  # type: ignore[arg-type]
        threading.setprofile(None)
    assert {"trace view", "profile view"} <= set(seen)


_ENDS_UNDER_VIEWS = """
import threading, time
from django.conf import settings
settings.configure()
from dwebsocket.runners import thread

begun = threading.Barrier(4)

def computes():
    begun.wait(60)
    while True:
        pass

def sleeps():
    begun.wait(60)
    while True:
        time.sleep(0.0001)

for view in (computes, sleeps, sleeps):
    thread.run("a view", view)
begun.wait(60)
"""


def test_process_ends_under_running_views() -> None:
    """Python ends threads that ask for the GIL then; up to 3.13 by unwinding them."""
    for _ in range(5):
        ended = subprocess.run([sys.executable, "-c", _ENDS_UNDER_VIEWS], timeout=60, check=False)
        assert ended.returncode == 0


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_view_that_forks(pool: ViewThreads) -> None:
    """The child's only thread ends with the view, and the child with it."""
    child = call(pool, os.fork)
    if child == 0:
        os._exit(1)  # not reached: only the view's thread goes on in the child
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_nothing_is_held_of_a_job(pool: ViewThreads) -> None:
    """When a wait for all jobs returns, a view and its connection are gone."""
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


def _stack_bytes() -> int:
    library = ctypes.CDLL(None)
    attributes = ctypes.create_string_buffer(256)
    size = ctypes.c_size_t()
    this = ctypes.c_ulong(threading.get_ident())
    assert library.pthread_getattr_np(this, attributes) == 0
    assert library.pthread_attr_getstacksize(attributes, ctypes.byref(size)) == 0
    assert library.pthread_attr_destroy(attributes) == 0
    return size.value


def test_stack_has_the_size_of_the_setting(pool: ViewThreads, override: Any) -> None:
    """Also when a thread with another size is free; for our threads only."""
    before = threading.stack_size()
    for size in (512 * 1024, 64 * 1024 * 1024, 512 * 1024):
        override(WEBSOCKET_THREAD_STACK_SIZE=size)
        # The C library uses stacks again for threads that ask for a fourth.
        assert size <= call(pool, _stack_bytes) <= 4 * size + 128 * 1024
        assert pool.join(10)
    assert threading.stack_size() == before


def test_system_that_gives_no_thread(pool: ViewThreads, override: Any) -> None:
    """The caller gets the error, and no job counts as running."""
    override(WEBSOCKET_THREAD_STACK_SIZE=2**50)
    with pytest.raises(RuntimeError, match="can't start new thread"):
        pool.run("a view", lambda: None)
    assert pool.join(0)
    override(WEBSOCKET_THREAD_STACK_SIZE=512 * 1024)
    assert call(pool, lambda: "works again") == "works again"


def test_job_that_raises(pool: ViewThreads, request_log: Any) -> None:
    """It is logged, and a wait for the job ends."""

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
    assert time.monotonic() - begun < 30


def test_database_connections_go_with_the_thread(
    pool: ViewThreads, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread that leaves holds none."""
    closed: list[int] = []
    monkeypatch.setattr(database, "leave", lambda: closed.append(threading.get_ident()))
    ident = call(pool, threading.get_ident)
    assert pool.join(10)
    # Threads of other tests may leave, too.
    assert closed.count(ident) == 1


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


def test_views_of_every_kind_are_waited_for() -> None:
    """A view alone, while no handler and no callback runs."""
    over = threading.Event()
    runners.runner_of("thread").run("a view", over.wait)  # type: ignore[arg-type]
    assert runners.join(0.01) is False
    over.set()
    assert runners.join(60) is True
