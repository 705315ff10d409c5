"""The questions of other threads to the connection that listens, in one queue."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from dwebsocket.compat import unpatched
from dwebsocket.groups.backends.postgres import future

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable
    from concurrent.futures import Future

    from dwebsocket.groups.backends.postgres.link import Link


class Query(NamedTuple):
    """
    One of them.

    Attributes:
        ask: Asks the server; it ends the future, now or when an answer comes.
        future: Of the result.
    """

    ask: Callable[[Link, Future[Any]], None]
    future: Future[Any]


class Queries:
    """The queue. Any thread may add to it; one takes from it."""

    def __init__(self) -> None:
        self._lock = unpatched.lock()
        # Not begun yet, and begun.
        self._new: dict[Hashable, Query] = {}
        self._begun: list[Query] = []

    def add(self, key: Hashable, ask: Callable[[Link, Future[Any]], None]) -> Future[Any]:
        """Returns a query's future. Those with the same key share one that has not begun."""
        with self._lock:
            return self._new.setdefault(key, Query(ask, future.new())).future

    def take(self) -> list[Query]:
        """Takes those that have not begun."""
        with self._lock:
            self._begun, self._new = list(self._new.values()), {}
            return self._begun

    def fail(self, error: Exception) -> None:
        """Ends what waits with an error."""
        for query in [*self._begun, *self.take()]:
            if not query.future.done():
                query.future.set_exception(error)
