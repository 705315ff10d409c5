"""Private parts of the standard library's ``threading``, ``concurrent.futures`` and ``sys``."""

from __future__ import annotations

import atexit
import gc
import sys
import threading
from concurrent.futures import thread as futures
from typing import TYPE_CHECKING, Any

from dwebsocket.compat.missing import MissingPart

if TYPE_CHECKING:
    import _thread
    from collections.abc import Callable, Mapping
    from concurrent.futures import Future
    from types import FrameType

try:
    # The original class, which gevent replaces in `queue`. CPython, since 3.7.
    from _queue import SimpleQueue as SimpleQueue
except ImportError:
    # Where it is missing, `queue` has one in Python.
    from queue import SimpleQueue as SimpleQueue


def forget_current_thread() -> None:
    """
    Removes the current thread, which Python has not started, from ``threading.enumerate()``.

    ``threading._active``, in every version of Python so far; 3.13 does the same by itself. Where it
    is missing in an earlier version, the thread is listed until another one gets its number.
    """
    active: dict[int, threading.Thread] = getattr(threading, "_active", {})
    active.pop(threading.get_ident(), None)


def does_one_work() -> bool:
    """
    Whether an application has started the current thread for one piece of work.

    So it is a :class:`threading.Thread`, not the main one, and no worker of a pool.
    ``threading._DummyThread``, ``Thread._target``, ``_worker`` and ``_threads_queues`` of
    ``concurrent.futures.thread``, in every version of Python so far. Where they are missing,
    foreign threads and workers of executors pass for one.
    """
    thread = threading.current_thread()
    foreign: Any = getattr(threading, "_DummyThread", ())
    # Workers of `multiprocessing.pool.ThreadPool`, where that is in use.
    worker: Any = getattr(sys.modules.get("multiprocessing.dummy"), "DummyProcess", ())
    # An executor notes its worker in `_threads_queues` after its start.
    target, of_executor = getattr(thread, "_target", None), getattr(futures, "_worker", None)
    return (
        isinstance(thread, threading.Thread)
        and thread is not threading.main_thread()
        and not isinstance(thread, (foreign, worker))
        and (target is None or target is not of_executor)
        and thread not in getattr(futures, "_threads_queues", ())
    )


def before_pools_end(call: Callable[[], object]) -> None:
    """
    Calls ``call`` when the interpreter ends, before thread pools stop taking work.

    ``threading._register_atexit``, since Python 3.9. Where it is missing: ``atexit``, which runs
    after that.
    """
    register: Callable[[Callable[[], object]], object]
    register = _of_the_end().get("_register_atexit", atexit.register)
    register(call)


def at_exit(call: Callable[[], object]) -> None:
    """
    Calls ``call`` when this process ends by itself, after all threads that Python waits for.

    ``atexit``, which children of ``multiprocessing`` skip before Python 3.13 unless they are
    spawned. There ``threading._threading_atexits``, since Python 3.9; where it is missing ``call``
    is not made in them.
    """
    processes: Any = sys.modules.get("multiprocessing.process")
    is_child = processes is not None and processes.parent_process() is not None
    before_threads: Any = _of_the_end().get("_threading_atexits")
    if sys.version_info >= (3, 13) or not is_child or before_threads is None:
        atexit.register(call)
        return

    def call_after_threads() -> None:
        # Thread pools are told to end before this: it is called last.
        own = threading.current_thread()
        while others := [
            each for each in threading.enumerate() if not (each.daemon or each is own)
        ]:
            others[0].join()
        call()

    before_threads.insert(0, call_after_threads)


def _of_the_end() -> dict[str, Any]:
    """
    Returns the variables of that ``threading`` whose hooks Python calls when it ends.

    It calls ``threading._shutdown``, in every version so far. eventlet puts that of a copy of the
    module in its place, and gevent a function of its own, which calls the original one.
    """
    found: dict[str, Any] = getattr(getattr(threading, "_shutdown", None), "__globals__", {})
    return found if found.get("__name__") == "threading" else vars(threading)


def use_lock(future: Future[Any], lock: _thread.RLock) -> None:
    """
    Makes ``future`` use ``lock``; to be called before any other code has the future.

    ``concurrent.futures.Future._condition``, since Python 3.2.

    Raises:
        MissingPart: It is missing. A green lock in its place would stop threads of the system.
    """
    if not hasattr(future, "_condition"):
        raise MissingPart("Python", "concurrent.futures.Future._condition")
    future._condition = threading.Condition(lock)


def frames() -> Mapping[int, FrameType]:
    """
    Returns the innermost frame of each thread, by the thread's number.

    ``sys._current_frames``, in every CPython so far. Where it is missing there are none, and
    messages do not say where a thread is.
    """
    current: Callable[[], Mapping[int, FrameType]] = getattr(sys, "_current_frames", dict)
    # Up to some releases of CPython 3.11 and 3.12 a collection within the call waits for ever when
    # it frees a `threading.local`: for a lock that the call holds (github.com/python/cpython,
    # issue 106883).
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        return current()
    finally:
        if was_enabled:
            gc.enable()


def frame_of(thread: int | None) -> FrameType | None:
    """Returns the innermost frame of one thread, as :func:`frames`; None when it has gone."""
    return None if thread is None else frames().get(thread)
