"""
The log of refused WebSockets, and of ends that neither the view nor the client asked for.

Each such event is one record, with the fields of :class:`Record` as attributes, and is counted.
``docs/logging.md`` lists the events.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dwebsocket.compat import unpatched
from dwebsocket.compat.system import renew_at_fork
from dwebsocket.telemetry import clock

if TYPE_CHECKING:
    from collections.abc import Hashable
    from typing import Literal

    from django.http import HttpRequest

    #: The side that began to end a connection.
    By = Literal["local", "peer", "lost"]


#: Every event and its meaning. The names are stable: projects search their logs for them.
EVENTS = {
    "websocket.refused": "a handshake was refused; the code is the HTTP status",
    "websocket.never_opened": "a handshake was accepted, and lost on the way",
    "websocket.violation": "the client broke the protocol or a limit",
    "websocket.too_fast": "the client sent more than it may",
    "websocket.too_slow": "the client did not take what was sent",
    "websocket.stalled": "the client did not finish a message that it had begun",
    "websocket.no_memory": "the process buffers more than it may, and this connection much of it",
    "websocket.lost": "the client vanished without a close frame",
    "websocket.signed_out": "the user has no right to it any more",
    "websocket.view_failed": "the view ended with an exception, or a method of a room did",
    "websocket.unseen_response": "the view returned a refusal that no client can see any more",
    "websocket.none_used": "the view took the None at the end for a message",
    "websocket.not_joined": "the backend of its groups was lost before it was a member",
    "websocket.no_thread": "there was no thread for the view",
    "websocket.broke": "a mistake of dwebsocket's",
    "channel.full": "a message was dropped, because its channel was full",
    "channel.expired": "a message was dropped, because it was not received in time",
}

# Not Django's logger for requests: with its default LOGGING and without DEBUG a warning there is
# shown nowhere. Without any LOGGING for ours Python itself prints warnings.
_log = logging.getLogger("dwebsocket")

# The event and its level for connections that the project closes outside of their views.
_EXPELLED = ("websocket.signed_out", logging.INFO)
# The event and its level for each close code of ends that the view did not ask for.
_ENDS = {
    1002: ("websocket.violation", logging.INFO),
    1007: ("websocket.violation", logging.INFO),
    1009: ("websocket.violation", logging.INFO),
    1008: ("websocket.too_fast", logging.INFO),
    1013: ("websocket.too_slow", logging.INFO),
    1011: ("websocket.broke", logging.ERROR),
}
# The same by close reason, for two codes that have several meanings.
_REASONS = {
    "message was not finished in time": ("websocket.stalled", logging.INFO),
    "the server is short of memory": ("websocket.no_memory", logging.INFO),
}
# How often each event has happened in this process, by code. Clients cannot add codes without end.
_counts: dict[str, dict[int, int]] = {event: {} for event in EVENTS}
_lock = unpatched.lock()
# Records of one kind that are logged at once, and a second after these, where any client can cause
# as many as it likes.
_BURST, _PER_S = 100.0, 1.0
# For each kind: how many may be logged, since when, and how many were not logged.
_floods: dict[Hashable, tuple[float, float, int]] = {}

# Close codes when the site ends, and when only this process ends.
_DEPARTURES = (1001, 1012)


@dataclass(frozen=True)
class Record:
    """
    The attributes of a record, with control characters written out.

    Attributes:
        event: One of :data:`EVENTS`.
        connection: The connection's number in this process, None before there is one.
        peer: The client's address as Django sees it, often a proxy's.
        path: The request's path.
        code: The close code, or the HTTP status of a refusal.
        reason: The reason beside it, or of the refusal.
        user: The primary key of the user; empty without one, and in refusals.
    """

    event: str
    connection: int | None
    peer: str
    path: str
    code: int
    reason: str
    user: str = ""

    def __post_init__(self) -> None:
        # Text from a client must not forge a log line or control a terminal, whatever the event.
        for name in ("peer", "path", "reason", "user"):
            object.__setattr__(self, name, printable(getattr(self, name)))

    @classmethod
    def of(
        cls, event: str, request: HttpRequest, code: int, reason: str, connection: int | None = None
    ) -> Record:
        """Returns the event of a request."""
        peer = request.META.get("REMOTE_ADDR") or ""
        # Not `request.user`, which may query the database.
        websocket = request.__dict__.get("websocket")
        user, _ = getattr(websocket, "_visitor_names", ("", ""))
        return cls(event, connection, peer, request.path, code, reason, user)

    def log(
        self,
        level: int,
        message: str,
        *args: object,
        logger: logging.Logger = _log,
        exc_info: BaseException | None = None,
        **more: Any,
    ) -> None:
        """
        Counts it, and logs it with its fields.

        Args:
            message: The text of the record, with its ``args``: by default the path and the reason.
            exc_info: The exception that caused it.
            **more: Further attributes of the record.
        """
        count(self.event, code=self.code)
        args = args or (self.path, self.reason)
        # The record names the caller's line, not this one (`stacklevel`).
        extra = {**vars(self), **more}
        logger.log(level, message, *args, exc_info=exc_info, extra=extra, stacklevel=2)


def count(event: str, number: int = 1, *, code: int = 0) -> None:
    """Counts an event of :data:`EVENTS`, under 0 where it has no code."""
    with _lock:
        counts = _counts[event]
        counts[code] = counts.get(code, 0) + number


def more_of(kind: Hashable) -> str | None:
    """
    Returns the end of a record's text: how many of its kind were not logged since the last one.

    To be asked once for each. Never waits; any thread may call it.

    Returns:
        The text, which is empty most often; None when this one shall not be logged, either.
    """
    now = clock.now()
    with _lock:
        left, since, unlogged = _floods.get(kind, (_BURST, now, 0))
        left = min(_BURST, left + (now - since) * _PER_S)
        is_logged = left >= 1
        _floods[kind] = (left - 1, now, 0) if is_logged else (left, now, unlogged + 1)
    if not is_logged:
        return None
    return f" (and {unlogged} more)" if unlogged else ""


def event_counts() -> dict[str, dict[int, int]]:
    """
    Returns how often each event of ``docs/logging.md`` has happened in this process.

    Events count whether or not they were logged: levels and filters do not matter. Never waits; any
    thread may call it.

    Returns:
        For each event its number by code, which is the HTTP status of a refusal, the close code
        of an end, and 0 for a channel:
        ``{"websocket.refused": {403: 2, 503: 1}, "websocket.lost": {1006: 7}, …}``.
        Events that have not happened are there, and empty.
    """
    with _lock:
        return {event: dict(counts) for event, counts in _counts.items()}


def printable(text: str) -> str:
    """Returns ``text`` with control characters, such as line breaks, escaped."""
    if text.isprintable():
        return text
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode() for each in text
    )


def report_end(
    request: HttpRequest, number: int, end: tuple[int, str, By], *, is_expelled: bool
) -> None:
    """
    Logs an end that neither the view nor the client asked for; others are not logged.

    Args:
        request: The handshake.
        number: The connection's.
        end: As :meth:`dwebsocket._core.Connection.end`, of a connection that the view has
            not closed.
        is_expelled: Whether the project has closed it elsewhere, by whatever code.
    """
    code, reason, by = end
    if by == "peer" or code in _DEPARTURES:
        return
    if by == "lost":
        event, level = "websocket.lost", logging.INFO
    elif is_expelled:
        event, level = _EXPELLED
    else:
        by_code = _ENDS.get(code, _EXPELLED)
        event, level = _REASONS.get(reason, by_code)
    record = Record.of(event, request, code, reason, number)
    record.log(
        level,
        "WebSocket %s of %s on %s ended with %d: %s",
        *(record.connection, record.peer, record.path, record.code, record.reason),
        request=request,
    )


renew_at_fork(
    globals(), _lock=unpatched.lock, _floods=dict, _counts=lambda: {event: {} for event in EVENTS}
)
