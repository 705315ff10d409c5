"""Private parts of the standard library's ``threading``, ``concurrent.futures`` and ``sys``."""

from __future__ import annotations

import atexit
import sys
import threading
from typing import TYPE_CHECKING, Any

from dwebsocket.compat.missing import MissingPart

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from concurrent.futures import Future
    from types import FrameType

try:
    # As it was before gevent put its own into `queue`. CPython, since 3.7.
    from _queue import SimpleQueue
except ImportError:
    # Where it is missing, `queue` has one in Python.
    from queue import SimpleQueue

__all__ = [
    "SimpleQueue",
    "before_pools_end",
    "frame_of",
    "frames",
    "start_without_waiting",
    "use_lock",
]


def _go_on(timeout: float | None = None) -> bool:
    """Takes the place of :meth:`threading.Event.wait`."""
    return True


def start_without_waiting(thread: threading.Thread) -> None:
    """
    Makes ``thread.start()``, which is yet to be called, return before the thread runs.

    ``Thread._started``, an event for which ``start()`` waits, in every version of Python so far.
    Where it is missing ``start()`` waits: two turns of the GIL more for each thread.
    """
    started = getattr(thread, "_started", None)
    if started is not None:
        started.wait = _go_on


def before_pools_end(call: Callable[[], object]) -> None:
    """
    Has ``call`` called when the interpreter ends, before thread pools stop taking work.

    ``threading._register_atexit``, since Python 3.9. Where it is missing: ``atexit``, which runs
    after that.
    """
    register: Callable[[Callable[[], object]], object]
    register = getattr(threading, "_register_atexit", atexit.register)
    register(call)


def use_lock(future: Future[Any], lock: threading.Lock) -> None:
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
    Gives the innermost frame of each thread, by the thread's number.

    ``sys._current_frames``, in every CPython so far. Where it is missing there are none, and
    messages do not say where a thread is.
    """
    current: Callable[[], Mapping[int, FrameType]] = getattr(sys, "_current_frames", dict)
    return current()


def frame_of(thread: int | None) -> FrameType | None:
    """Gives the innermost frame of one thread, as :func:`frames`; None when it has gone."""
    return None if thread is None else frames().get(thread)
