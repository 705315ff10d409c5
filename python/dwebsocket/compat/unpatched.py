"""
Threads, locks and other primitives of the system, also in a monkey-patched process.

gevent and eventlet can replace parts of the standard library ("monkey patching"), before or after
this package is imported. Code that works with the engine's or an event loop's thread needs the
original parts.
"""

from __future__ import annotations

import logging
import os
import queue
import sys
from concurrent.futures import Future
from contextvars import Context
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from dwebsocket.compat import gevent
from dwebsocket.compat.eventlet import system_selector
from dwebsocket.compat.system import Poll, monotonic
from dwebsocket.compat.threading import SimpleQueue, use_lock

if TYPE_CHECKING:
    import selectors
    import threading
    from collections.abc import Callable

T = TypeVar("T")

_log = logging.getLogger("dwebsocket")

# Seconds between two looks of a green thread whether a lock of the system is free.
_LOOK_S = 0.01
# Seconds before a thread that has failed goes on: what has failed may do so at once again.
_PAUSE_S = 0.1

_GEVENT, _EVENTLET = "gevent.monkey", "eventlet.patcher"


def patched_by() -> Literal["gevent", "eventlet"] | None:
    """Returns the library that has patched this process, so that all new threads are green."""
    # Looked up, not imported: a library that has patched something has been imported already.
    gevent = sys.modules.get(_GEVENT)
    if gevent is not None and gevent.is_module_patched("threading"):
        return "gevent"
    eventlet = sys.modules.get(_EVENTLET)
    if eventlet is not None and eventlet.is_monkey_patched("thread"):
        return "eventlet"
    return None


def original(module: str, name: str) -> Any:
    """Returns the object ``name`` of a standard library module, as it was before any patch."""
    library = patched_by()
    if library == "gevent":
        return sys.modules[_GEVENT].get_original(module, name)
    if library == "eventlet":
        return getattr(sys.modules[_EVENTLET].original(module), name)
    return getattr(__import__(module), name)


def lock() -> threading.Lock:
    """Returns a lock between threads of the system. Never hold it across anything that sleeps."""
    found: threading.Lock = original("_thread", "allocate_lock")()
    return found


def future() -> Future[Any]:
    """
    Returns a future that any thread may settle; a green lock would not exclude those of others.
    """
    made: Future[Any] = Future()
    # The error about a future that is settled already shows the future: one thread takes it twice.
    use_lock(made, original("_thread", "RLock")())
    return made


def sleep(seconds: float) -> None:
    """Makes this thread of the system sleep, which also stops all green threads on it."""
    original("time", "sleep")(seconds)


def start_thread(name: str, target: Callable[[], None]) -> None:
    """
    Starts a daemon thread of the system.

    Raises:
        RuntimeError: The system gives no more threads.
    """
    if patched_by() is None:
        thread = original("threading", "Thread")(name=name, target=target, daemon=True)
        # Many live longer than the request that needs one first. Python may pass the context on,
        # without the GIL or by `-X thread_inherit_context`, and so do packages such as Sentry.
        Context().run(thread.start)
    else:
        original("_thread", "start_new_thread")(_run, ([target],))


def lasting(name: str, work: Callable[[], None]) -> Callable[[], None]:
    """
    Returns a function for a thread that many connections need: it calls ``work`` until it returns.

    An exception of ``work`` is logged, and ``work`` is called again a moment later.
    """

    def keep_up() -> None:
        while True:
            try:
                return work()
            except BaseException:
                # All of them: without the thread, nobody would do the work any more.
                _log.exception("The thread %s failed, and begins anew", name)
            pause(_PAUSE_S)

    return keep_up


def start_code(name: str, target: Callable[[], None]) -> None:
    """
    Starts a thread for code that is not of this package: Django's, Channels', the application's.

    Its locks are green in a patched process, and wake-ups between green threads of several threads
    of the system get lost. So with gevent it is a greenlet of the hub that serves connections.

    Raises:
        RuntimeError: The system gives no more threads.
    """
    if not (patched_by() == "gevent" and gevent.spawn_at_home(target)):
        start_thread(name, target)


def run_code(target: Callable[[], object]) -> None:
    """Calls code that is not of this package on this thread, with gevent as :func:`start_code`."""
    if not (patched_by() == "gevent" and gevent.spawn_at_home(target)):
        target()


def call_code(target: Callable[[], T]) -> T:
    """Runs code as :func:`run_code`, from any thread: waits, and returns its result."""
    if is_code_green():
        return target()
    # No future: it would make a green lock first.
    found: list[T] = []
    errors: list[BaseException] = []
    done = lock()
    done.acquire()

    def call() -> None:
        try:
            found.append(target())
        except BaseException as error:
            errors.append(error)
        finally:
            done.release()

    run_code(call)
    done.acquire()
    if errors:
        raise errors.pop()
    return found[0]


def close_descriptor(descriptor: int) -> None:
    """Closes a descriptor on a thread of the system: that of a patched ``os`` looks at its hub."""
    original("os", "close")(descriptor)


def is_code_green() -> bool:
    """Whether :func:`start_code` gives green threads, of the thread of the system that asks."""
    return patched_by() == "gevent" and gevent.is_at_home()


def pause(seconds: float) -> None:
    """Makes a thread of :func:`start_code` sleep."""
    if is_code_green():
        _let_others_run(lambda: gevent.sleep(seconds))
    else:
        sleep(seconds)


def acquire(lock: threading.Lock, timeout: float) -> bool:
    """Acquires a lock of the system that a thread of :func:`start_code` releases, or not."""
    if not is_code_green():
        return lock.acquire(timeout=timeout)
    deadline = monotonic() + timeout
    while not lock.acquire(blocking=False):
        if monotonic() >= deadline:
            return False
        gevent.sleep(_LOOK_S)
    return True


def select(selector: selectors.BaseSelector, timeout: float) -> list[Any]:
    """Waits at one of :func:`selector`, on a thread of :func:`start_code`."""
    if not is_code_green():
        return selector.select(timeout)
    found = selector.select(0)
    if not found and timeout > 0:
        descriptor: int = selector.fileno()  # type: ignore[attr-defined]
        _let_others_run(lambda: gevent.wait_for_reading(descriptor, timeout))
        found = selector.select(0)
    return found


def _let_others_run(wait: Callable[[], object]) -> None:
    """Waits on a green thread. A copy of it, which a fork has made meanwhile, ends here."""
    process = os.getpid()
    wait()
    if os.getpid() != process:
        raise gevent.exit_of_greenlets()


def calls() -> SimpleQueue[Any]:
    """Returns a queue for threads of :func:`start_code`, which sleep where they take from it."""
    if is_code_green():
        green: SimpleQueue[Any] = queue.SimpleQueue()
        return green
    return SimpleQueue()


def _run(targets: list[Callable[[], None]]) -> None:
    """Runs one target in a patched process."""
    try:
        # Off the list: gevent keeps the frames below the call of `destroy_hub`.
        targets.pop()()
    finally:
        gevent.destroy_hub()


def starter(target: Callable[[], object]) -> Callable[[], object]:
    """Returns a callable that starts a daemon thread of the system, without any code in Python."""
    return partial(original("_thread", "start_new_thread"), target, ())


def selector() -> selectors.BaseSelector:
    """Returns a selector that blocks this thread of the system, also in a patched process."""
    if patched_by() == "eventlet":
        return system_selector()
    found: selectors.BaseSelector = original("selectors", "DefaultSelector")()
    return found


def epolls() -> Any:
    """Returns the class ``select.epoll``, also in a patched process; None where there is none."""
    try:
        return original("select", "epoll")
    except AttributeError:
        return None


def poller() -> Poll:
    """Returns a poller of the system, also in a patched process."""
    # One of `select.epoll` has the same methods.
    made: Poll = Poll(original("select", "poll")) if (epoll := epolls()) is None else epoll()
    return made
