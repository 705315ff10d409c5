"""The groups of the backend that a process is in, because its channels are in groups."""

from __future__ import annotations

from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING

from dwebsocket.compat import unpatched

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from dwebsocket.groups.arrivals import Subscription


class _Membership:
    """One name: its subscriptions, and how many calls are about to need them."""

    def __init__(self, subscriptions: list[Subscription]) -> None:
        self.subscriptions = subscriptions
        self.joining = 0


class Memberships:
    """
    Subscriptions by name, while they are needed. Any thread may use it.

    Args:
        subscribe: Returns the subscriptions for a name, which were not started yet.
        is_needed: Whether a name is in use.
    """

    def __init__(
        self, subscribe: Callable[[str], list[Subscription]], is_needed: Callable[[str], bool]
    ) -> None:
        self._subscribe = subscribe
        self._is_needed = is_needed
        self._lock = unpatched.lock()
        self._all: dict[str, _Membership] = {}

    @contextmanager
    def held(self, name: str) -> Iterator[None]:
        """Starts the subscriptions of a name, which stay for the block. Ending never waits."""
        membership = self._enter(name)
        try:
            for each in membership.subscriptions:
                each.start()
            yield
        finally:
            self._release(name)

    @asynccontextmanager
    async def aheld(self, name: str) -> AsyncIterator[None]:
        """Holds as :meth:`held`, and raises the same, without blocking the event loop."""
        membership = self._enter(name)
        try:
            for each in membership.subscriptions:
                await each.astart()
            yield
        finally:
            self._release(name)

    def _release(self, name: str) -> None:
        with self._lock:
            if (membership := self._all.get(name)) is not None:
                membership.joining -= 1
        self.end_unless_needed(name)

    def end_unless_needed(self, name: str) -> None:
        """Ends the subscriptions of a name that is not in use. Never waits."""
        with self._lock:
            membership = self._all.get(name)
            if membership is None or membership.joining or self._is_needed(name):
                return
            del self._all[name]
        for each in membership.subscriptions:
            each.end()

    def end_all(self) -> None:
        """Ends all subscriptions, needed or not. Never waits."""
        with self._lock:
            everything, self._all = self._all, {}
        for membership in everything.values():
            for each in membership.subscriptions:
                each.end()

    def names(self) -> list[str]:
        """Returns the names with subscriptions."""
        with self._lock:
            return list(self._all)

    def _enter(self, name: str) -> _Membership:
        with self._lock:
            membership = self._all.get(name)
            if membership is None:
                membership = self._all[name] = _Membership(self._subscribe(name))
            membership.joining += 1
        return membership
