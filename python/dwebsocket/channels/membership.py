"""The groups of the backend that a process is in, because its channels are in groups."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dwebsocket.compat import unpatched

if TYPE_CHECKING:
    from collections.abc import Callable

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

    def hold(self, name: str) -> None:
        """
        Starts the subscriptions of a name, which stay until :meth:`release` at least.

        Raises:
            GroupUnavailable: The backend cannot be reached; nothing has to be released then.
        """
        membership = self._enter(name)
        try:
            for each in membership.subscriptions:
                each.start()
        except BaseException:
            self.release(name)
            raise

    async def ahold(self, name: str) -> None:
        """Holds as :meth:`hold`, and raises the same, without blocking the event loop."""
        membership = self._enter(name)
        try:
            for each in membership.subscriptions:
                await each.astart()
        except BaseException:
            self.release(name)
            raise

    def release(self, name: str) -> None:
        """Ends a :meth:`hold`. Never waits."""
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
