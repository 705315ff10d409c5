"""Views where a version of the standard library lacks a private part."""

from __future__ import annotations

import _thread
import asyncio
import atexit
import concurrent.futures
import importlib
import multiprocessing.process
import queue
import socket
import ssl
import subprocess
import sys
import threading
from contextvars import ContextVar, copy_context
from functools import partial
from importlib.util import find_spec
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import pytest

from dwebsocket.compat import asyncio as asyncio_parts
from dwebsocket.compat import socket as socket_parts
from dwebsocket.compat import threading as threading_parts
from dwebsocket.compat import unpatched
from dwebsocket.compat.missing import MissingPart, need, version_of

if TYPE_CHECKING:
    from collections.abc import Iterator


EXIT_HOOKS = """
import sys
if sys.argv[1] == "eventlet":
    import eventlet
    eventlet.monkey_patch()
elif sys.argv[1] == "gevent":
    from gevent import monkey
    monkey.patch_all()
import multiprocessing
from dwebsocket.compat import threading

def register(name):
    threading.at_exit(lambda: print("late", name, flush=True))
    threading.before_pools_end(lambda: print(name, flush=True))

child = multiprocessing.get_context("fork").Process(target=register, args=("child",))
child.start()
child.join()
register("parent")
"""


class TestMissing:
    """The error about a part that is indispensable."""

    def test_names_library_version_and_part(self) -> None:
        """All that its reader has to know."""
        with pytest.raises(MissingPart, match=r"dict\.fly, which Django \d+\.\d+.* does not have"):
            need("Django", dict, "get", "fly")

    def test_what_is_there_is_no_error(self) -> None:
        """Then nothing happens."""
        need("Django", dict, "get", "pop")

    def test_versions(self) -> None:
        """Of Python, of what is installed, and of what is not known."""
        assert version_of("Python").startswith(f"{sys.version_info[0]}.{sys.version_info[1]}.")
        assert version_of("asgiref").startswith("3.")
        assert version_of("no-such-library") == "(unknown version)"


class TestRunningLoop:
    """Which event loop runs here."""

    @pytest.fixture(params=["as it is", "missing"])
    def parts(
        self, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
    ) -> Iterator[Any]:
        """The module, also where asyncio has only its public function."""
        if request.param == "missing":
            monkeypatch.delattr(asyncio, "_get_running_loop")
        yield importlib.reload(asyncio_parts)
        monkeypatch.undo()
        importlib.reload(asyncio_parts)

    def test_is_known(self, parts: Any) -> None:
        """Outside of loops there is none, and no exception."""

        async def ask() -> bool:
            return parts.running_loop() is asyncio.get_running_loop()

        assert parts.running_loop() is None
        assert asyncio.run(ask())


@pytest.mark.parametrize("is_there", [True, False])
def test_hidden_task_still_runs(monkeypatch: pytest.MonkeyPatch, is_there: bool) -> None:
    """Where it cannot be hidden it is one among all tasks."""
    if not is_there:
        monkeypatch.delattr(asyncio, "_unregister_task")

    async def main() -> bool:
        task = asyncio.create_task(asyncio.sleep(0))
        asyncio_parts.hide_task(task)
        is_hidden = task not in asyncio.all_tasks()
        await task
        return is_hidden

    assert asyncio.run(main()) is is_there


def test_our_threads_begin_with_an_empty_context(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that outlive a view keep nothing of it, where threads inherit, as without the GIL."""

    class Heir(threading.Thread):
        def start(self) -> None:
            self.run = partial(copy_context().run, self.run)  # type: ignore[method-assign]
            super().start()

    of_view: ContextVar[str] = ContextVar("of_view")
    of_view.set("its")
    found: queue.SimpleQueue[str] = queue.SimpleQueue()
    monkeypatch.setattr(threading, "Thread", Heir)
    unpatched.start_thread("test", lambda: found.put(of_view.get("")))
    assert found.get(timeout=60) == ""


class TestThreads:
    """Threads, futures and their locks."""

    def test_threads_that_python_has_not_started(self) -> None:
        """Each has an object with its name and numbers, listed until it is forgotten."""
        found: list[threading.Thread] = []
        errors: list[BaseException] = []

        def run(name: str) -> None:
            try:
                thread = threading.current_thread()
                thread.name = name
                found.append(thread)
                assert (thread.name, thread.daemon, thread.is_alive()) == (name, True, True)
                assert thread.ident == threading.get_ident()
                assert thread.native_id == threading.get_native_id()
                assert thread in threading.enumerate()
                threading_parts.forget_current_thread()
                assert thread not in threading.enumerate()
            except BaseException as error:
                errors.append(error)
            finally:
                ended.release()

        ended = threading.Lock()
        ended.acquire()
        for name in ("first", "second", "third"):
            _thread.start_new_thread(run, (name,))
            assert ended.acquire(timeout=10)
        assert errors == []
        assert [thread.name for thread in found] == ["first", "second", "third"]

    def test_exit_hook(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The public one takes the place of one that has moved."""
        early: list[object] = []
        late: list[object] = []
        monkeypatch.setattr(threading, "_register_atexit", early.append)
        monkeypatch.setattr(atexit, "register", late.append)
        threading_parts.before_pools_end(print)
        monkeypatch.delattr(threading, "_register_atexit")
        threading_parts.before_pools_end(repr)
        assert (early, late) == ([print], [repr])

    @pytest.mark.parametrize("library", ["", "gevent", "eventlet"])
    def test_exit_hooks_are_called(self, library: str) -> None:
        """Those of a child of ``multiprocessing`` too, and where a library has green threads."""
        if library and find_spec(library) is None:
            pytest.skip(f"{library} is missing")
        program = [sys.executable, "-W", "ignore", "-c", EXIT_HOOKS, library]
        done = subprocess.run(program, capture_output=True, text=True, timeout=60)
        lines = ["child", "late child", "parent", "late parent"]
        assert (done.stdout.splitlines(), done.stderr) == (lines, "")

    @pytest.mark.skipif(sys.version_info >= (3, 13), reason="children call atexit's functions")
    def test_exit_hook_of_a_child(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The public one takes the place of the list that has moved."""
        late: list[object] = []
        monkeypatch.setattr(atexit, "register", late.append)
        monkeypatch.setattr(multiprocessing.process, "parent_process", lambda: "its parent")
        monkeypatch.delattr(threading, "_threading_atexits")
        threading_parts.at_exit(print)
        assert late == [print]

    def test_lock_of_a_future(self) -> None:
        """The future works on it; without its condition there is an error and not a green lock."""
        future: concurrent.futures.Future[int] = concurrent.futures.Future()
        lock = _thread.RLock()
        threading_parts.use_lock(future, lock)
        with lock:
            acquired = concurrent.futures.ThreadPoolExecutor(1).submit(
                future._condition.acquire,  # type: ignore[attr-defined]
                blocking=False,
            )
            assert acquired.result(10) is False
        future.set_result(1)
        assert future.result(10) == 1
        with pytest.raises(MissingPart, match=r"Future\._condition, which Python 3"):
            threading_parts.use_lock(SimpleNamespace(), lock)  # type: ignore[arg-type]

    def test_a_future_that_is_settled_twice(self) -> None:
        """It says so, and with what it has, which it looks up while it holds its lock."""
        future = unpatched.future()
        future.set_result(1)
        errors: list[BaseException] = []

        def settle() -> None:
            try:
                future.set_result(2)
            except concurrent.futures.InvalidStateError as error:
                errors.append(error)

        thread = threading.Thread(target=settle, daemon=True)
        thread.start()
        thread.join(10)
        assert "returned int" in str(errors)

    def test_queue(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Where the one in C is missing there is the one in Python."""
        monkeypatch.setitem(sys.modules, "_queue", None)
        try:
            assert importlib.reload(threading_parts).SimpleQueue is queue.SimpleQueue
        finally:
            monkeypatch.undo()
            importlib.reload(threading_parts)

    def test_frames(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Without them the place of a thread is unknown."""
        own = threading.get_ident()
        frame = threading_parts.frame_of(own)
        assert frame is not None
        assert threading_parts.frame_of(None) is None
        monkeypatch.delattr(sys, "_current_frames")
        assert threading_parts.frame_of(own) is None

    def test_frames_while_garbage_is_collected(self) -> None:
        """CPython 3.11.7 for one would wait for itself for ever."""
        subprocess.run([sys.executable, "-c", FRAMES_AND_GARBAGE], check=True, timeout=60)


FRAMES_AND_GARBAGE = """
import gc, threading
from dwebsocket.compat.threading import frames

for number in range(300):
    garbage = threading.local()
    garbage.itself = garbage
    del garbage
    gc.set_threshold(number % 5 + 1)
    assert frames()
assert gc.isenabled()
"""


class TestSockets:
    """The stream below a reader, and the state inside of a socket."""

    def test_below_a_reader(self) -> None:
        """Nothing where the attribute has gone."""
        ours, theirs = socket.socketpair()
        with ours, theirs, ours.makefile("rb") as reader:
            assert socket_parts.below_reader(reader) is ours
        assert socket_parts.below_reader(SimpleNamespace(raw=SimpleNamespace())) is None
        assert socket_parts.below_reader(None) is None

    def test_plain_socket(self) -> None:
        """It has no TLS, and no inner socket."""
        ours, theirs = socket.socketpair()
        with ours, theirs:
            assert not socket_parts.has_tls(ours)
            assert socket_parts.replace_inner(ours, theirs) is None

    def test_tls(self) -> None:
        """It is taken out once."""
        ours, theirs = socket.socketpair()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        with (
            theirs,
            context.wrap_socket(ours, server_side=True, do_handshake_on_connect=False) as wrapped,
        ):
            assert socket_parts.has_tls(wrapped)
            assert hasattr(socket_parts.take_tls(wrapped), "shutdown")
            assert not socket_parts.has_tls(wrapped)

    def test_encrypted_socket_without_its_state(self) -> None:
        """Never taken for a plain one: the engine would write plain text to the client."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        with pytest.raises(MissingPart, match=r"_sslobj, which Python 3"):
            socket_parts.has_tls(SimpleNamespace(context=context))

    def test_inner_socket(self) -> None:
        """As gevent's sockets have it."""
        outer = SimpleNamespace(_sock="the system's")
        assert socket_parts.replace_inner(outer, "another") == "the system's"  # type: ignore[arg-type]
        assert outer._sock == "another"


class TestOneWork:
    """Whose thread this is, where Python does not tell of foreign threads and of workers."""

    def test_a_thread_of_an_application(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """It is one all the same, and the main thread is none."""
        monkeypatch.delattr(threading, "_DummyThread")
        monkeypatch.delattr(concurrent.futures.thread, "_threads_queues")
        found: list[bool] = []
        thread = threading.Thread(target=lambda: found.append(threading_parts.does_one_work()))
        thread.start()
        thread.join()
        assert found == [True]
        assert not threading_parts.does_one_work()

    def test_a_worker_that_its_executor_has_not_noted_yet(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It begins with its first call before it is noted, on a busy machine."""
        has_called = threading.Event()

        class Queues(WeakKeyDictionary[Any, Any]):
            def __setitem__(self, thread: Any, calls: Any) -> None:
                has_called.wait(20)
                super().__setitem__(thread, calls)

        def call() -> bool:
            found = threading_parts.does_one_work()
            has_called.set()
            return found

        monkeypatch.setattr(concurrent.futures.thread, "_threads_queues", Queues())
        with concurrent.futures.ThreadPoolExecutor(1) as executor:
            assert executor.submit(call).result(20) is False
