"""
Private parts of ``asgiref``: how its calls between sync and async code find their threads.

Versions 3.9.1 to 3.13. Before 3.9.1 what one view sets in a ``Local``, such as the active language,
reaches others.
"""

from __future__ import annotations

import asyncio
import threading
from contextlib import asynccontextmanager
from contextvars import Context, ContextVar
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, TypeVar

from asgiref import local, sync
from asgiref.sync import AsyncToSync, SyncToAsync, ThreadSensitiveContext

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from concurrent.futures import Executor

T = TypeVar("T")

_NOTHING = SimpleNamespace()

#: ``asgiref.local._Storage``, since 3.12: the values of one ``Local`` in a context, tagged with the
#: thread that has set them. Has the arguments and attributes ``thread_id`` and ``data``. None where
#: it is missing: before, values had no such tag, and nothing has to be done about it.
Storage: Any = getattr(local, "_Storage", None)
#: ``asgiref.local._rehome``, since 3.12: returns a copy of a ``_Storage`` that is this thread's. As
#: :data:`Storage` where it is missing.
rehome: Any = getattr(local, "_rehome", None)


def leave_request() -> None:
    """
    Makes ``sync_to_async`` in this task use a thread of its loop, and not that of the request.

    Uses these of :mod:`asgiref.sync`, which exist in all these versions:

    - ``AsyncToSync.executors.current``: runs calls on the server's thread while that waits for an
      async view under WSGI. After the 101 it does not wait: a call given to it would never run.
    - ``SyncToAsync.thread_sensitive_context``: the thread of a request under ASGI, which
      ends with the handshake.
    - ``SyncToAsync.deadlock_context``: whether asgiref's one thread for all loops was in use
      in this context when the handshake was served.

    Where one is missing nothing refers to it, and it needs no resetting.
    """
    # Check first: deleting a missing value takes longer.
    if does_thread_wait():
        del AsyncToSync.executors.current
    for name, outside in (("thread_sensitive_context", None), ("deadlock_context", False)):
        variable = getattr(SyncToAsync, name, None)
        # Most views have neither: do not add a value to the context of each of them.
        if variable is not None and variable.get(outside) is not outside:
            variable.set(outside)


def does_thread_wait() -> bool:
    """
    Whether a thread waits for this coroutine, by ``async_to_sync``, and makes its sync calls.

    ``AsyncToSync.executors.current``, as :func:`leave_request`. Where it is missing: no.
    """
    executors: Any = getattr(AsyncToSync, "executors", None)
    return not _is_unused(executors) and getattr(executors, "current", None) is not None


def _is_unused(values: object) -> bool:
    """
    Whether nothing was ever set in a ``Local`` in this context.

    ``_CVar._data``, a ``ContextVar``, in all these versions. Where it is missing: no, and the
    ``Local`` is asked, which takes ten times as long to say that there is nothing.
    """
    data = vars(getattr(values, "_storage", _NOTHING)).get("_data")
    return isinstance(data, ContextVar) and data.get(None) is None


def use_executor(loop: asyncio.AbstractEventLoop, executor: Executor) -> None:
    """
    Makes ``sync_to_async`` in ``loop`` run its calls in ``executor``, one after the other.

    ``AsyncToSync.loop_thread_executors``, in all these versions. Where it is missing they run in
    the one thread that asgiref has for all loops; on green threads that is a green one, and async
    views that call Django's ORM stand still.
    """
    executors: dict[asyncio.AbstractEventLoop, Any] | None
    executors = getattr(AsyncToSync, "loop_thread_executors", None)
    if executors is not None:
        executors[loop] = executor


def django_locals_are_green() -> bool:
    """
    Whether each green thread has its own values where Django and asgiref keep those of a thread.

    ``SyncToAsync.threadlocal``, a ``threading.local`` in all these versions, which is made when it
    is imported: no, if the class was patched later. Where it is missing: yes.
    """
    return isinstance(getattr(SyncToAsync, "threadlocal", threading.local()), threading.local)


def exchange_one_thread(make: Callable[[Executor], Executor]) -> None:
    """
    Has the calls that asgiref makes on one thread for all loops made by an executor of ``make``.

    ``SyncToAsync.single_thread_executor``, a :class:`~concurrent.futures.ThreadPoolExecutor` in all
    these versions, which ``make`` gets, and ``_threads`` of that. Where one is missing, or the
    thread is there already, it stays: consumers of ours then have another one.
    """
    executor = getattr(SyncToAsync, "single_thread_executor", None)
    if executor is not None and getattr(executor, "_threads", None) == set():
        SyncToAsync.single_thread_executor = make(executor)  # type: ignore[assignment]


def use_context(context: ThreadSensitiveContext, executor: Executor) -> None:
    """
    Makes ``context`` this task's thread-sensitive context, whose calls run in ``executor``.

    ``SyncToAsync.thread_sensitive_context`` and ``SyncToAsync.context_to_thread_executor``, since
    3.3. Where they are missing calls run in the one thread that asgiref has for all loops.
    """
    executors: Any = getattr(SyncToAsync, "context_to_thread_executor", None)
    variable: Any = getattr(SyncToAsync, "thread_sensitive_context", None)
    if executors is not None and variable is not None:
        executors[context] = executor
        variable.set(context)


@asynccontextmanager
async def request_context() -> AsyncIterator[None]:
    """
    Enters a :class:`~asgiref.sync.ThreadSensitiveContext`, also within that of an application.

    A thread of its own for the sync code of one request: some of it waits for the view, and the
    view may need the application's thread. ``SyncToAsync.thread_sensitive_context`` and
    ``ThreadSensitiveContext.token``, since 3.3. Where one is missing the outer context stays.
    """
    context = ThreadSensitiveContext()
    async with context:
        variable: Any = getattr(SyncToAsync, "thread_sensitive_context", None)
        if variable is not None and getattr(context, "token", context) is None:
            context.token = variable.set(context)
        yield


def current_context() -> ThreadSensitiveContext | None:
    """Returns the context of this task, as :func:`use_context`."""
    variable: Any = getattr(SyncToAsync, "thread_sensitive_context", None)
    found: ThreadSensitiveContext | None = None if variable is None else variable.get(None)
    return found


def sync_call(
    call: SyncToAsync[Any, Any], context: Context, tasks: list[asyncio.Task[Any]], *args: Any
) -> Callable[..., Any]:
    """
    Returns a function for other threads: it does what awaiting ``call(*args, …)`` in this loop
    does.

    In ``context``, which keeps what is set. ``tasks`` has the tasks of ``async_to_sync`` in it.

    ``SyncToAsync.thread_handler``, which libraries override, in all these versions.
    """
    handle = partial(call.thread_handler, asyncio.get_running_loop(), (None, None, None), tasks)

    def function(*more: Any) -> Any:
        _own_all(context)
        return call.func(*args, *more)

    return partial(handle, context.run, function)


def wrapped_in_context(
    call: Callable[..., T], wrap: Callable[[Callable[..., T]], Callable[..., T]]
) -> Callable[..., T]:
    """
    Returns what ``SyncToAsync`` calls on a thread, wrapped within the context that it gives that.

    A partial of ``SyncToAsync.thread_handler``, whose last argument is the function that runs in
    the context, in all these versions. Anything else is wrapped as a whole.
    """
    if isinstance(call, partial) and isinstance(getattr(call.func, "__self__", None), SyncToAsync):
        *others, function = call.args
        return partial(call.func, *others, wrap(function))
    return wrap(call)


def _own_all(context: Context) -> None:
    """
    Makes this thread the owner of all values of ``Local`` in ``context``, which runs.

    ``asgiref.sync._restore_context``, in all these versions. Where it is missing, values that other
    threads have set are not seen here.
    """
    restore = getattr(sync, "_restore_context", None)
    if restore is not None:
        restore(context)


def coroutine_function_of(function: object) -> object:
    """
    Returns the coroutine function behind ``async_to_sync(…)``, None for anything else.

    ``AsyncToSync.awaitable``, in all these versions. Where it is missing: None, and the function is
    called as it is.
    """
    return getattr(function, "awaitable", None) if isinstance(function, AsyncToSync) else None
