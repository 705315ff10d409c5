"""The threads of ASGI applications' sync code: how many, in which order, and their databases."""

from __future__ import annotations

import asyncio
import functools
import sqlite3
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth.models import User
from django.db import connection, transaction

from dwebsocket.compat import unpatched
from dwebsocket.runners.application_threads import (
    ApplicationContext,
    ApplicationThreads,
    CallQueue,
    _threads_of,
)
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

WITHIN_S = 10
MANY = 50


# A call of asgiref under way when the loop ends, in a project with these apps.
UNDER_WAY = """
import asyncio, sys, threading, time
import django
from django.conf import settings
settings.configure(INSTALLED_APPS=["dwebsocket", *sys.argv[1:]], DATABASES={})
django.setup()
from asgiref.sync import sync_to_async

def save():
    begun.set()
    time.sleep(0.5)
    print("saved on", threading.current_thread().name.partition("-")[0], flush=True)

async def main():
    task = asyncio.create_task(sync_to_async(save)())
    await asyncio.to_thread(begun.wait)

begun = threading.Event()
asyncio.run(main())
"""


@pytest.mark.parametrize(
    ("app", "thread"), [((), "ThreadPoolExecutor"), (("channels",), "dwebsocket")], ids=str
)
def test_the_exit_waits_for_asgirefs_calls(app: tuple[str, ...], thread: str) -> None:
    """On its own thread where there are no applications, else on theirs."""
    command = [sys.executable, "-c", UNDER_WAY, *app]
    done = subprocess.run(command, stdout=subprocess.PIPE, timeout=60)
    assert done.stdout.decode() == f"saved on {thread}\n"


@pytest.fixture
def threads() -> Iterator[ApplicationThreads]:
    """Threads of the test alone, all of which end with it."""
    made = ApplicationThreads(MANY)
    yield made
    eventually(lambda: not made.are_alive)


def result(future: Any) -> Any:
    """Wait for a call."""
    return future.result(WITHIN_S)


def test_order(threads: ApplicationThreads) -> None:
    """The calls of one application are made one at a time, in their order."""
    line, seen, busy = CallQueue(threads), [], threading.Lock()

    def note(number: int) -> None:
        assert busy.acquire(blocking=False)
        seen.append(number)
        busy.release()

    calls = [line.submit(functools.partial(note, number)) for number in range(200)]
    for call in calls:
        result(call)
    assert seen == list(range(200))
    line.end()


def test_side_by_side(threads: ApplicationThreads) -> None:
    """Those of different ones at the same time, as many as there are threads."""
    together = threading.Barrier(MANY, timeout=WITHIN_S)
    lines = [CallQueue(threads) for _ in range(MANY)]
    for call in [line.submit(together.wait) for line in lines]:
        result(call)
    for line in lines:
        line.end()


def test_error(threads: ApplicationThreads) -> None:
    """Is that of the call; the next one is made all the same."""
    line = CallQueue(threads)

    def fail() -> None:
        raise LookupError("no")

    failed = line.submit(fail)
    with pytest.raises(LookupError, match="no"):
        result(failed)
    assert result(line.submit(lambda: 7)) == 7
    line.end()


def test_without_a_thread(threads: ApplicationThreads, monkeypatch: pytest.MonkeyPatch) -> None:
    """The caller gets the error; when there are threads again the line goes on."""
    line = CallQueue(threads)

    def refuse(*_: Any) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(unpatched, "start_thread", refuse)
        with pytest.raises(RuntimeError, match="can't start new thread"):
            line.submit(lambda: None)
    assert result(line.submit(lambda: 7)) == 7
    line.end()


def test_calls_after_the_end(threads: ApplicationThreads) -> None:
    """Such as to save the session: they are made, and nothing stays."""
    line = CallQueue(threads)
    result(line.submit(lambda: None))
    line.end()
    assert result(line.submit(lambda: 7)) == 7


def in_application(main: Callable[[], Any]) -> None:
    """Run `main()` as the task of an application, whose thread-sensitive calls are its own."""

    async def run() -> None:
        own = ApplicationContext.enter()
        try:
            await main()
        finally:
            await own.leave()

    asyncio.run(run())


class TestDatabase:
    """Connections belong to the thread of the process."""

    def test_stays_with_a_connection(self, tables: None) -> None:
        """Calls that follow find it: a transaction may last for several of them."""

        async def main() -> None:
            begin = transaction.atomic()
            await sync_to_async(begin.__enter__)()
            await sync_to_async(User.objects.create_user)("bea")
            assert await User.objects.filter(username="bea").acount() == 1
            await sync_to_async(transaction.set_rollback)(True)
            await sync_to_async(begin.__exit__)(None, None, None)
            assert await User.objects.filter(username="bea").acount() == 0

        in_application(main)

    def test_queryset(self, anna: User) -> None:
        """Its cursor is read by several calls."""

        async def main() -> None:
            assert [user.username async for user in User.objects.all()] == ["anna"]

        in_application(main)

    def test_closed_at_the_end(self, tables: None) -> None:
        """When the last application has left, the connection is closed."""
        used: list[Any] = []

        def use() -> None:
            User.objects.count()
            used.append(connection.connection)

        in_application(sync_to_async(use))
        with pytest.raises(sqlite3.ProgrammingError):
            used[0].execute("select 1")


def test_limit() -> None:
    """When all threads have a call, further ones wait, and are made in their order."""
    two, others = ApplicationThreads(2), threading.Event()
    lines = [CallQueue(two) for _ in range(MANY)]
    together = threading.Barrier(3, timeout=WITHIN_S)
    busy = [line.submit(lambda: (together.wait(), others.wait())) for line in lines[:2]]
    together.wait()
    waiting = [line.submit(lambda: None) for line in lines[2:]]
    assert not any(call.done() for call in waiting)
    others.set()
    for call in [*busy, *waiting]:
        result(call)
    for line in lines:
        line.end()
    eventually(lambda: not two.are_alive)


def test_one_thread_stays() -> None:
    """Between applications, too: objects that belong to it can be used by the next one."""
    seen = set()
    for _ in range(3):
        line = CallQueue(_threads_of(1))
        seen.add(result(line.submit(threading.get_ident)))
        line.end()
    assert len(seen) == 1


class TestReading:
    """Messages of a connection, between the calls."""

    def test_messages_and_calls(self, threads: ApplicationThreads, open_websocket: Any) -> None:
        """One at a time, on any thread; the future ends with the connection."""
        line, seen = CallQueue(threads), []
        live = open_websocket()
        reading = line.read(live.connection, seen.append)
        for number in range(100):
            live.client.send(str(number))
            if number % 10 == 0:
                result(line.submit(lambda: None))
        eventually(lambda: len(seen) == 100)
        live.client.close()
        assert result(reading) is None
        assert seen == [str(number) for number in range(100)]
        line.end()

    def test_error(self, threads: ApplicationThreads, open_websocket: Any) -> None:
        """Ends the reading, with what was not read."""

        def fail(message: object) -> None:
            raise ValueError(message)

        line = CallQueue(threads)
        live = open_websocket()
        reading = line.read(live.connection, fail)
        live.client.send("one")
        live.client.send("two")
        with pytest.raises(ValueError, match="one"):
            result(reading)
        result(line.submit(lambda: None))
        line.end()

    def test_cancelled(self, threads: ApplicationThreads, open_websocket: Any) -> None:
        """No message is read any more; calls are still made."""
        line, seen = CallQueue(threads), []
        live = open_websocket()
        reading = line.read(live.connection, seen.append)
        eventually(lambda: not line.has_turn, what="the line waits for a message")
        reading.cancel()
        live.client.send("one")
        result(line.submit(lambda: None))
        assert not seen
        line.end()
