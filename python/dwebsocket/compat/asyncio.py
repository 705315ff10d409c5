"""Private parts of the standard library's ``asyncio``."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    Loop = asyncio.AbstractEventLoop


def _running_loop() -> Loop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


#: Returns the event loop that runs in this thread, or None.
#:
#: ``asyncio._get_running_loop``, in every version of Python so far: without a frame of Python and
#: without an exception, because it is asked for each message. Where it is missing: the public
#: ``get_running_loop``, which is slower.
running_loop: Callable[[], Loop | None] = getattr(asyncio, "_get_running_loop", _running_loop)


def hide_task(task: asyncio.Task[Any]) -> None:
    """
    Makes ``asyncio.all_tasks()`` leave out ``task``, which the caller must keep alive.

    ``asyncio._unregister_task``, since Python 3.7 (its docs, "Extending"). Where it is missing the
    task stays among the others, and ``all_tasks()`` takes longer.
    """
    unregister = getattr(asyncio, "_unregister_task", None)
    if unregister is not None:
        unregister(task)


def cancellation_of(task: asyncio.Task[Any]) -> Callable[[], object]:
    """
    Returns a function that tells whether ``task``, which has not waited yet, was cancelled.

    ``Task.cancelling``, which is public since Python 3.11; before that ``Task._must_cancel``.
    """
    found: Callable[[], object] | None = getattr(task, "cancelling", None)
    return found or (lambda: task._must_cancel)  # type: ignore[attr-defined]


def leave_to_loop(task: asyncio.Task[Any]) -> None:
    """
    Hides a task as :func:`hide_task`. It ends with its loop, and asyncio does not complain of that.

    ``Task._log_destroy_pending``, in every version of Python so far. Where it is missing the log
    has a line for it.
    """
    hide_task(task)
    if hasattr(task, "_log_destroy_pending"):
        task._log_destroy_pending = False


def set_running_loop(loop: Loop | None) -> None:
    """
    Sets the event loop that runs in this thread of the system; None for no loop.

    ``asyncio._set_running_loop``, in every version of Python so far: "intended to be used by event
    loops". Where it is missing nothing is set, and green threads see the loop of another one.
    """
    if _set_running_loop is not None:
        _set_running_loop(loop)


def swap_current_task(loop: Loop, task: asyncio.Task[Any] | None) -> asyncio.Task[Any] | None:
    """
    Sets the current task of an event loop and returns the one before.

    ``asyncio.tasks._swap_current_task``, since Python 3.12. A thread has one current task from 3.14
    on. Where it is missing each loop has one of its own, and nothing needs to be swapped.
    """
    return None if _swap_current_task is None else _swap_current_task(loop, task)


_set_running_loop: Any = getattr(asyncio, "_set_running_loop", None)
_swap_current_task: Any = getattr(asyncio.tasks, "_swap_current_task", None)
