"""
The callers of a connection (threads, green threads, tasks), and which have received its end.

Each of them receives the end once as ``None``, and as an exception when it calls again later,
independently of the others. Most connections never need a :class:`Caller`.
"""

from __future__ import annotations

from dataclasses import dataclass
from weakref import WeakKeyDictionary

# How long after the end a caller still gets None. Later calls raise.
GRACE_S = 1.0
# The first and the longest pause of a caller that goes on calling after the end.
_FIRST_PAUSE_S = 0.001
_LONGEST_PAUSE_S = 1.0
# A sender may be passing on the rest of a source: for the first time, refused sends cause no pause.
# Over the second time, their pauses grow to the longest one.
_SENDS_FREELY_S = 5.0
_SENDS_RARELY_S = 60.0


@dataclass(eq=False, repr=False, slots=True)
class Caller:
    """
    One caller of one connection. Used by that caller only.

    Attributes:
        receives: It has asked for messages.
        told_at: When it received the end, on the clock of :mod:`dwebsocket.telemetry.clock`.
        is_refused: Its last send was refused, and it has not asked for messages since.
        has_closed: It has closed the connection itself.
        asked_at: The time of its first ``is_closed()`` after the end; None again when it has asked
            for messages since.
    """

    receives: bool = False
    told_at: float | None = None
    is_refused: bool = False
    has_closed: bool = False
    asked_at: float | None = None
    _gap: float = _FIRST_PAUSE_S
    _next_call: float = 0.0
    _next_send: float = 0.0
    _refused_at: float | None = None

    def pause(self, now: float) -> float:
        """
        Returns the seconds that a call after the end has to sleep before anything else.

        The pauses grow, up to a second, so that a loop that ignores the end uses little processor
        time. A caller that calls more rarely than that never sleeps.

        Args:
            now: Seconds, as by :func:`dwebsocket.telemetry.clock.now`.
        """
        pause = max(0.0, self._next_call - now)
        self._next_call = now + pause + self._gap
        self._gap = min(2 * self._gap, _LONGEST_PAUSE_S)
        return pause

    def pause_of_send(self, now: float) -> float:
        """Returns the seconds to sleep after a refused send: none for 5 s, then growing ones."""
        if self._refused_at is None:
            self._refused_at = now
        late = (now - self._refused_at - _SENDS_FREELY_S) / _SENDS_RARELY_S
        gap = _LONGEST_PAUSE_S * min(max(0.0, late), 1.0)
        pause = max(0.0, self._next_send - now)
        self._next_send = now + pause + gap
        return pause


#: The callers of one connection, by their thread, greenlet or task. Any thread may use it.
Callers = WeakKeyDictionary[object, Caller]
