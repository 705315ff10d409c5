"""The questions of other threads to the connection that listens, in one queue."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dwebsocket.compat import unpatched
from dwebsocket.groups.backends.postgres import future

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable
    from concurrent.futures import Future

    from dwebsocket.groups.backends.postgres.link import Link


@dataclass
class Query:
    """
    One of them.

    Attributes:
        ask: Asks the server; it ends the future, now or when an answer comes.
        is_lasting: It is asked once more if the connection is lost meanwhile.
        future: Of the result.
        is_repeated: That has happened.
    """

    ask: Callable[[Link, Future[Any]], None]
    is_lasting: bool
    future: Future[Any] = field(default_factory=future.new)
    is_repeated: bool = False


class Queries:
    """The queue. Any thread may use it."""

    def __init__(self) -> None:
        self._lock = unpatched.lock()
        # Not begun yet, and begun.
        self._new: dict[Hashable, Query] = {}
        self._begun: dict[Hashable, Query] = {}

    @property
    def is_lasting(self) -> bool:
        """Whether something waits that outlasts the loss of a connection."""
        return any(query.is_lasting for query in list(self._new.values()))

    def add(
        self, key: Hashable, ask: Callable[[Link, Future[Any]], None], *, is_lasting: bool = False
    ) -> Future[Any]:
        """Returns a query's future. Those with the same key share one that has not begun."""
        with self._lock:
            return self._new.setdefault(key, Query(ask, is_lasting)).future

    def take(self) -> list[Query]:
        """Takes those that have not begun."""
        with self._lock:
            self._begun, self._new = self._new, {}
            return list(self._begun.values())

    def fail(self, error: Exception, *, put_back: bool) -> None:
        """
        Ends what waits with an error.

        With ``put_back`` those that last wait for another connection, but for those that were put
        back before: one of them may be the reason that the connection was lost.
        """
        failed = []
        with self._lock:
            new, self._new = self._new, {}
            begun = {key: query for key, query in self._begun.items() if not query.future.done()}
            self._begun = {}
            for key, query in [*new.items(), *begun.items()]:
                is_again = key in begun and begun[key] is query
                if put_back and query.is_lasting and not (is_again and query.is_repeated):
                    query.is_repeated = query.is_repeated or is_again
                    if self._new.setdefault(key, query) is query:
                        continue
                failed.append(query)
        for query in failed:
            query.future.set_exception(error)
