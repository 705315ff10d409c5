"""
A handshake that its view decides on (``accept=False``).

Two threads or tasks share a :class:`Decision`. The *handler* must return a response to the server;
the *view* runs beside it from the start. The view decides once: it accepts, or answers like the
view of a page. Then the handler returns that response, and a view that has accepted sleeps until
the connection is open, or is lost on the way.
"""

from __future__ import annotations

import functools
import threading
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

from dwebsocket.exceptions import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

EventT = TypeVar("EventT")

Headers = list[tuple[str, str]]


class Acceptance(NamedTuple):
    """The view takes the connection."""

    subprotocol: str | None
    headers: Headers
    what: str = "was accepted"


class Rejection(NamedTuple):
    """The view called ``reject``."""

    status: int

    @property
    def what(self) -> str:
        """The end of a sentence about the view's handshake, for messages of errors."""
        return f"was rejected with {self.status}"


class Answer(NamedTuple):
    """The response that the view returned without having accepted or rejected."""

    response: Any
    what: str = "was answered with a response"


class Failure(NamedTuple):
    """The exception that the view let through before it decided."""

    error: BaseException
    what: str = "was answered with an error"


class GivenUp(NamedTuple):
    """The handler has stopped waiting for the view's decision."""

    what: str = "was given up"


Outcome = Acceptance | Rejection | Answer | Failure | GivenUp


class Decision(Generic[EventT]):
    """
    A view's decision on a handshake, and its outcome. Any thread may use it.

    Attributes:
        is_async: The view is async, and waits for its event in an event loop.
        offered: The subprotocols that the client offers.
        decided: Set when there is an outcome, for the handler.
        settled: Set when the connection is open or lost, for a view that has accepted.
        is_dropped: Whether the response that opens the connection was freed: some middleware has
            answered something else. Never true before ``decided`` is set.
    """

    def __init__(
        self, decided: Any, settled: EventT, *, is_async: bool, offered: tuple[str, ...]
    ) -> None:
        self.is_async = is_async
        self.offered = offered
        self.decided = decided
        self.settled = settled
        self.is_dropped: Callable[[], bool] = bool
        # The first entry is the decision: `setdefault` is atomic without a lock.
        self._claims: dict[str, object] = {}
        self._outcome: Outcome | None = None
        self._what = ""
        self._is_given_up = False

    @property
    def is_open_question(self) -> bool:
        """Whether the view has not decided yet."""
        return not self._claims

    def decide(self, outcome: Outcome) -> bool:
        """
        Notes the view's decision; false when it has decided before.

        The caller that gets true sets :attr:`decided` when the handler may go on.
        """
        claim = object()
        first = self._claims.setdefault("", claim) is claim
        if first:
            self._outcome, self._what = outcome, outcome.what
            self._is_given_up = isinstance(outcome, GivenUp)
        return first

    def tell_handler(self, outcome: Outcome) -> bool:
        """Decides as :meth:`decide`, and wakes the handler unless somebody has decided before."""
        if is_first := self.decide(outcome):
            self.decided.set()
        return is_first

    def insist(self, outcome: Outcome) -> None:
        """
        Decides like :meth:`decide`, but raises when the view has decided before.

        Does nothing when the handler has stopped waiting.

        Raises:
            UsageError: The view has decided before.
        """
        if not self.decide(outcome) and not self._is_given_up:
            raise UsageError(f"this handshake {self._what} already: a view decides once")

    def take_outcome(self) -> Outcome:
        """
        Returns the outcome, once, and drops it here.

        An exception in it refers to frames that refer to this object: kept, both would form a
        reference cycle.
        """
        outcome, self._outcome = self._outcome, None
        assert outcome is not None
        return outcome


@functools.cache
def accepted(*, is_async: bool) -> Decision[Any]:
    """
    Returns the decision of all handshakes that were accepted, when nobody waits for theirs.

    With its two events a decision takes two kilobytes, as long as the connection is open.
    """
    over = threading.Event()
    over.set()
    decision: Decision[Any] = Decision(over, over, is_async=is_async, offered=())
    decision.decide(Acceptance(None, []))
    return decision
