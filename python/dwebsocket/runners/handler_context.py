"""
The contexts of handlers. Equal ones are one object, however many connections there are.

Nothing changes such a context: each call of a handler's methods runs in a copy, which the thread
owns (:func:`dwebsocket.request.context.enter_thread`). For a shared one each thread makes that
once.
"""

from __future__ import annotations

from contextvars import copy_context
from threading import get_ident
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from dwebsocket.api.sending import forget_target
from dwebsocket.request import context
from dwebsocket.runners.async_view_threads import SharedContext

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextvars import Context

# Values of other types may belong to one request.
_SHAREABLE = frozenset({type(None), bool, int, float, str, SharedContext})
# Threads that have made their copy of one context. Green ones come and go.
_MOST_THREADS = 64


class HandlerContext:
    """The context that middleware has set for one or many requests. Any thread may use it."""

    __slots__ = ("__weakref__", "_context", "_settled")

    def __init__(self, its_context: Context, *, is_shared: bool) -> None:
        self._context = its_context
        # By thread. One connection's own is not worth the memory.
        self._settled: dict[int, Context] | None = {} if is_shared else None

    def copy(self) -> Context:
        """Returns a copy whose values still have the owners that they had."""
        return self._context.copy()

    def fresh(self) -> Context:
        """Returns a copy that this thread owns."""
        if (settled := self._settled) is None:
            own = self._context.copy()
            own.run(context.enter_thread)
            return own
        thread = get_ident()
        if (known := settled.get(thread)) is None:
            known = self._context.copy()
            known.run(context.enter_thread)
            if len(settled) >= _MOST_THREADS:
                settled.clear()
            settled[thread] = known
        return known.copy()

    def run(self, function: Callable[..., None], *args: Any) -> None:
        """Calls ``function`` in a copy that this thread owns."""
        self.fresh().run(function, *args)


def is_unchanged(before: Context) -> bool:
    """Whether the running code's context has the values of a copy that was made before."""
    try:
        return copy_context() == before
    except Exception:
        # A value of the project's cannot be compared with the one that is there now.
        return False


_known: WeakValueDictionary[tuple[tuple[int, int], ...], HandlerContext] = WeakValueDictionary()


def shared(its_context: Context) -> HandlerContext:
    """
    Returns the context of a handler that begins: a known one, if there is one of equal values.
    """
    own = its_context.copy()
    # All of them have one owner, which no thread is.
    own.run(context.enter_thread, context.NO_THREAD)
    # What is noted of the request's thread would keep the contexts apart.
    own.run(forget_target)
    items = list(own.items())
    if not all(type(value) in _SHAREABLE or context.is_shared(value) for _, value in items):
        return HandlerContext(own, is_shared=False)
    # A known context keeps its variables and values alive, so no others can have their ids.
    key = tuple(sorted((id(variable), id(value)) for variable, value in items))
    return _known.setdefault(key, HandlerContext(own, is_shared=True))
