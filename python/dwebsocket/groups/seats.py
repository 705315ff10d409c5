"""The seats of rooms in this process: whom to tell when one has ended by itself."""

from __future__ import annotations

import itertools
from collections import Counter
from typing import Protocol
from weakref import WeakValueDictionary

from dwebsocket.compat import unpatched
from dwebsocket.compat.system import renew_at_fork


class Owner(Protocol):
    """The part of a connection with rooms that is needed here."""

    def look_again(self) -> None:
        """Has it look at its seats soon. Never waits."""

    def ask_again(self, using: str) -> None:
        """Has it ask soon who may be in its rooms of a backend. Never waits."""


_owners: WeakValueDictionary[int, Owner] = WeakValueDictionary()
# How many of them are present, by the aliases and the names of groups.
_present: Counter[tuple[str, str]] = Counter()
_lock = unpatched.lock()
_numbers = itertools.count(1)


def new_number(owner: Owner) -> int:
    """Returns a seat's number, by which ``owner`` is found."""
    number = next(_numbers)
    with _lock:
        _owners[number] = owner
    return number


def note_end(number: int) -> None:
    """Tells a seat's owner that it has ended."""
    with _lock:
        owner = _owners.get(number)
    if owner is not None:
        owner.look_again()


def note_interruption(using: str) -> None:
    """Tells owners of seats that evictions of a backend may have been missed."""
    with _lock:
        owners = list(_owners.values())
    for owner in owners:
        owner.ask_again(using)


def forget(number: int) -> None:
    """Forgets a seat."""
    with _lock:
        _owners.pop(number, None)


def note_presence(using: str, name: str, change: int) -> None:
    """Counts the seats of a group that are present, or watch, in this process."""
    with _lock:
        _present[using, name] += change
        if not _present[using, name]:
            del _present[using, name]


def are_present(using: str, name: str) -> bool:
    """Whether a group has presence because a room of this process says so."""
    return (using, name) in _present


renew_at_fork(globals(), _owners=WeakValueDictionary, _lock=unpatched.lock, _present=Counter)
