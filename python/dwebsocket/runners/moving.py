"""
The moves of handlers to another process, as far as their home takes part.

A handler that is to move is *parked* first: its turn ends before it takes another message, and no
other turn comes. Then its connection is given away, and a last turn lets go of everything here
without a word to the project; or it stays, and goes on with its next message.
"""

from __future__ import annotations

from ast import literal_eval
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from dwebsocket.compat import unpatched
from dwebsocket.compat.system import renew_at_fork

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from dwebsocket._core import Seat

    #: A seat in a room: the alias and the name of its group, whether the client has a position.
    MovingSeat = tuple[str, str, bool, Seat]


def is_version(own: object, theirs: str) -> bool:
    """
    Whether the version of this process's code is that of another one.

    Args:
        own: Of any type that can be compared.
        theirs: What ``repr`` gives of the other one: sets, and equal numbers, have several.
    """
    if repr(own) == theirs:
        return True
    try:
        return bool(literal_eval(theirs) == own)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        # It is no plain value.
        return False


_lock = unpatched.lock()
# By their `id`: those of a dataclass have no hash, and may equal each other.
#: The handlers of this process that survive it, by their first turns.
_survivors: dict[int, Any] = {}
# Those whose handshakes are being answered, and those whose connections another process gives.
_opening: WeakValueDictionary[int, Any] = WeakValueDictionary()
_coming: WeakValueDictionary[int, Any] = WeakValueDictionary()
# Of the latter, the connections that have been given, by their handlers.
_given: dict[int, Any] = {}
# Whether none may open any more: the others are about to move.
_is_closed = False


def expect(handler: Any, *, is_moved: bool = False) -> None:
    """
    Notes a handler that is about to live, and survives.

    Args:
        is_moved: Whether it comes from another process.
    """
    with _lock:
        (_coming if is_moved else _opening)[id(handler)] = handler


def note_given(handler: Any, connection: Any) -> None:
    """Notes the connection of a handler that comes from another process, and does not live yet."""
    with _lock:
        _given[id(handler)] = connection


def given() -> list[Any]:
    """Returns the connections whose handlers do not live yet."""
    with _lock:
        return list(_given.values())


def give_up(handler: Any) -> None:
    """Forgets a handler that was to come from another process. One that lives goes on."""
    with _lock:
        for known in (_coming, _given):
            known.pop(id(handler), None)


def is_closed() -> bool:
    """Whether no handler may begin to live any more, because the others move."""
    return _is_closed


def are_opening() -> bool:
    """Whether a handler is about to live. Its client would be closed, and could move soon."""
    return bool(_opening) or bool(_coming)


def are_coming() -> bool:
    """Whether other processes are to give connections that this one has agreed to take."""
    return bool(_coming)


@contextmanager
def closed() -> Iterator[None]:
    """Lets no other handler begin to live meanwhile."""
    global _is_closed
    _is_closed = True
    try:
        yield
    finally:
        _is_closed = False


def enter(handler: Any) -> None:
    """Notes a handler that survives this process, whose life has begun."""
    with _lock:
        _survivors[id(handler)] = handler
        for known in (_opening, _coming, _given):
            known.pop(id(handler), None)


def leave(handler: Any) -> None:
    """Forgets a handler."""
    with _lock:
        for known in (_survivors, _opening, _coming, _given):
            known.pop(id(handler), None)


def is_survivor(handler: Any) -> bool:
    """Whether a handler survives this process, and has not ended."""
    with _lock:
        return id(handler) in _survivors


def survivors() -> list[Any]:
    """Returns the handlers that survive this process."""
    with _lock:
        return list(_survivors.values())


class Move:
    """The move of one handler. Any thread may use it."""

    __slots__ = ("_is_cancelled", "_is_parked", "_lock", "_on_parked", "has_parted")

    def __init__(self, on_parked: Callable[[], None]) -> None:
        """``on_parked`` is called once, by the handler's turn. It must not wait."""
        self._lock = unpatched.lock()
        self._is_parked = self._is_cancelled = False
        self._on_parked = on_parked
        #: Whether the connection is another process's now.
        self.has_parted = False

    def park(self) -> bool:
        """To be called by the handler's turn. Returns whether that ends here."""
        with self._lock:
            if self._is_cancelled:
                return False
            is_first, self._is_parked = not self._is_parked, True
        if is_first:
            self._on_parked()
        return True

    def cancel(self) -> bool:
        """Lets the handler go on. False when it is parked, and has to be told."""
        with self._lock:
            self._is_cancelled = not self._is_parked
            return self._is_cancelled


renew_at_fork(
    globals(),
    _lock=unpatched.lock,
    _survivors=dict,
    _opening=WeakValueDictionary,
    _coming=WeakValueDictionary,
    _given=dict,
    _is_closed=bool,
)
