"""The event loop for async views of WSGI servers."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import os
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any

import pytest
from django.test import RequestFactory
from peer import LiveWebSocket

from dwebsocket.compat import unpatched
from dwebsocket.runners import loop
from dwebsocket.runners import view as runner
from dwebsocket.runners.loop import BackgroundLoop, SystemExecutor
from support.waiting import eventually

Open = Callable[..., LiveWebSocket]

variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="nothing")


@pytest.fixture(scope="module")
def background() -> BackgroundLoop:
    """A loop of the tests' own."""
    return BackgroundLoop()


def start(background: BackgroundLoop, live: LiveWebSocket, view: Any) -> None:
    """Run an async view as the upgrade does."""

    def arun() -> Any:
        return runner.arun(view, RequestFactory().get("/"), ((), {}), live.websocket)

    background.run("a view", arun, contextvars.copy_context())


def test_loop_can_be_dismissed() -> None:
    """With its thread, once it is quiet; the next task starts another."""
    background = BackgroundLoop()
    assert background.dismiss(0)
    threads: list[threading.Thread] = []
    goes_on = threading.Event()

    async def note() -> None:
        threads.append(threading.current_thread())
        await asyncio.to_thread(goes_on.wait, 10)

    for _ in range(2):
        goes_on.clear()
        background.run("a task", note, contextvars.copy_context())
        assert not background.dismiss(0.01)
        goes_on.set()
        assert background.dismiss(10)
    for thread in threads:
        thread.join(10)
    assert [thread.is_alive() for thread in threads] == [False, False]


def test_the_end_of_a_loop_is_not_that_of_the_next_one() -> None:
    """Also if nobody has waited for the first one."""
    background = BackgroundLoop()
    loops: list[asyncio.AbstractEventLoop] = []

    async def note() -> None:
        loops.append(asyncio.get_running_loop())
        if len(loops) == 2:
            # It is busy after its task has ended.
            loops[1].call_soon(time.sleep, 0.5)

    background.run("a task", note, contextvars.copy_context())
    eventually(lambda: loops and background.join(0))
    background.dismiss(0)
    eventually(loops[0].is_closed)
    background.run("a task", note, contextvars.copy_context())
    eventually(lambda: len(loops) == 2 and background.join(0))
    assert background.dismiss(10)
    assert loops[1].is_closed()


def test_views_are_hidden_from_all_tasks() -> None:
    """
    Django asks for all tasks of all loops at each request to an async view.

    With 19,000 open WebSockets each handshake took 16 ms for that.
    """
    background = BackgroundLoop()
    goes_on = threading.Event()
    found: list[tuple[str, int]] = []

    async def view() -> None:
        task = asyncio.current_task()
        assert task is not None
        await asyncio.to_thread(goes_on.wait, 10)
        # It is a task like any other but for that.
        found.append((task.get_name(), len(asyncio.all_tasks())))

    for _ in range(3):
        background.run("a view", view, contextvars.copy_context())
    goes_on.set()
    assert background.dismiss(10)
    assert found == [("a view", 0)] * 3


def test_runs_views_side_by_side(background: BackgroundLoop, open_websocket: Open) -> None:
    """Thousands on one thread."""
    lives = [open_websocket() for _ in range(20)]
    threads = set()

    async def echo(request: Any, live: LiveWebSocket) -> None:
        threads.add(threading.current_thread().name)
        async for message in live.websocket:
            await live.websocket.asend(message)

    for live in lives:

        async def view(request: Any, live: LiveWebSocket = live) -> None:
            await echo(request, live)

        start(background, live, view)
    for number, live in enumerate(lives):
        live.client.send(str(number))
    assert [live.client.receive() for live in lives] == [str(n) for n in range(20)]
    for live in lives:
        live.client.close()
    assert background.join(10)
    assert threads == {"dwebsocket-loop"}


def test_task_bears_the_views_name(background: BackgroundLoop, open_websocket: Open) -> None:
    """For debuggers that list the tasks of the process."""
    live = open_websocket()

    async def view(request: Any) -> None:
        task = asyncio.current_task()
        assert task is not None
        await live.websocket.asend(task.get_name())

    start(background, live, view)
    assert live.client.receive() == "a view"
    assert live.client.closing() == (1000, "")


def test_context_is_that_of_the_call(background: BackgroundLoop, open_websocket: Open) -> None:
    """And what a view sets stays with it."""
    first, second = open_websocket(), open_websocket()

    def make(live: LiveWebSocket) -> Any:
        async def view(request: Any) -> None:
            await live.websocket.asend(variable.get())
            variable.set("changed by a view")

        return view

    token = variable.set("set by middleware")
    start(background, first, make(first))
    assert first.client.receive() == "set by middleware"
    assert background.join(10)
    variable.reset(token)
    start(background, second, make(second))
    assert second.client.receive() == "nothing"


def test_context_of_the_handshake_is_not_kept(
    background: BackgroundLoop, open_websocket: Open
) -> None:
    """A value that a view removes from its own copy is gone: the server's thread, above all."""
    live = open_websocket()

    class Left(str):
        """An object that can be referred to weakly."""

    async def view(request: Any) -> None:
        variable.set("")
        await live.websocket.areceive()
        gc.collect()
        await live.websocket.asend(str(gone()))

    token = variable.set(Left("behind"))
    gone = weakref.ref(variable.get())
    start(background, live, view)
    variable.reset(token)
    del token
    live.client.send("is it?")
    assert live.client.receive() == "None"


def test_view_that_raises(
    background: BackgroundLoop, open_websocket: Open, request_log: Any
) -> None:
    """Its own connection ends with 1011, the loop goes on."""
    broken, live = open_websocket(), open_websocket()

    async def fail(request: Any) -> None:
        raise RuntimeError("boom")

    async def view(request: Any) -> None:
        await live.websocket.asend("alive")

    start(background, broken, fail)
    assert broken.client.closing() == (1011, "")
    start(background, live, view)
    assert live.client.receive() == "alive"
    assert background.join(10)
    assert len(request_log("django.request")) == 1


def test_view_that_is_cancelled(background: BackgroundLoop, open_websocket: Open) -> None:
    """Its connection is closed and nothing waits for it."""
    live = open_websocket()

    async def view(request: Any) -> None:
        task = asyncio.current_task()
        assert task is not None
        asyncio.get_running_loop().call_soon(task.cancel)
        await live.websocket.areceive()

    start(background, live, view)
    assert live.client.closing() == (1011, "")
    assert background.join(10)


def test_join_waits_for_running_views(background: BackgroundLoop, open_websocket: Open) -> None:
    """Up to its time."""
    live = open_websocket()

    async def view(request: Any) -> None:
        await live.websocket.areceive()

    start(background, live, view)
    assert background.join(0) is False
    assert background.join(-1) is False
    live.client.send("end")
    assert background.join(10) is True
    assert all(background.join(0) for _ in range(1000)), "no time is enough where nothing runs"


def test_without_async_views_there_is_no_loop() -> None:
    """Nothing is started, nothing is waited for."""
    background = BackgroundLoop()
    assert background.join(60) is True
    assert background._loop is None


def test_system_that_gives_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """The caller gets the error, no loop is left open, and the next try may succeed."""
    background = BackgroundLoop()

    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    done = threading.Event()

    async def note() -> None:
        done.set()

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError, match="can't start new thread"):
            background.run("a view", note, contextvars.copy_context())
    assert background.join(0)
    background.run("a view", note, contextvars.copy_context())
    assert done.wait(10)
    assert background.join(10)


def test_executor_that_gets_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """It tries again each time; the threads that it has make the calls meanwhile."""
    executor = SystemExecutor(2)

    def refuse(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(unpatched, "start_thread", refuse)
        for _ in range(3):
            with pytest.raises(RuntimeError, match="can't start new thread"):
                executor.submit(bool)
    assert executor.submit(lambda: 1).result(10) == 1
    monkeypatch.setattr(unpatched, "start_thread", refuse)
    assert executor.submit(lambda: 2).result(10) == 2


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt])
def test_task_that_asks_for_the_end_of_the_process(
    error: type[BaseException], request_log: Callable[..., list[Any]]
) -> None:
    """It ends alone, as a view on a thread does, and is logged: others are tasks of the loop."""
    background, goes_on, done = BackgroundLoop(), threading.Event(), threading.Event()

    async def other() -> None:
        await asyncio.to_thread(goes_on.wait, 10)
        done.set()

    async def leave() -> None:
        raise error

    background.run("another", other, contextvars.copy_context())
    background.run("leaves", leave, contextvars.copy_context())
    eventually(lambda: request_log("dwebsocket"), what="it is logged")
    goes_on.set()
    assert done.wait(10)
    assert background.dismiss(10)


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_forked_child_starts_anew() -> None:
    """The parent's loop is not there, whatever the variables say."""
    parents = threading.Event()

    async def note(event: threading.Event) -> None:
        event.set()

    loop.run("in the parent", lambda: note(parents), contextvars.copy_context())
    assert parents.wait(10)
    assert loop.join(10)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            done = threading.Event()
            loop.run("in the child", lambda: note(done), contextvars.copy_context())
            status = 0 if done.wait(10) and loop.join(10) else 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
