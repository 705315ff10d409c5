"""The responses that refuse a WebSocket, and their log records."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from django.conf import settings
from django.http import HttpResponse

from dwebsocket import signals
from dwebsocket.compat.django import mark_as_logged
from dwebsocket.telemetry import tally
from dwebsocket.telemetry.records import Record, count, more_of

if TYPE_CHECKING:
    from django.http import HttpRequest

_RETRY_AFTER_S = 5
# The texts for clients outside DEBUG, by the cause, then by the status. Reasons of other refusals
# are only about the request.
_TOLD_OF_CAUSE = {
    "factory": "There is no WebSocket for this request.",
    "view": "The view rejected it.",
}
_TOLD = {
    403: "This page may not open a WebSocket here.",
    404: "This address has no group.",
    413: "The messages are too large.",
    429: "There are too many WebSockets from you.",
    431: "The headers of this handshake are too large.",
    501: "There are no WebSockets here.",
    503: "There is no room for another WebSocket now.",
}
# The causes of refusals that name none, for counters.
_CAUSES = {
    400: "malformed",
    403: "origin",
    404: "no_group",
    411: "malformed",
    413: "too_large",
    426: "version",
    429: "too_many",
    431: "handshake_size",
    501: "server",
}


def refuse(
    request: HttpRequest, status: int, reason: str, level: str = "warning", cause: str = ""
) -> HttpResponse:
    """
    Returns a response that refuses a WebSocket, and logs why; a flood of them not each time.

    The response says what is wrong with the client's request. A cause on the server's side is
    logged, and stands in the response only under ``DEBUG``.

    Args:
        request: Django's.
        cause: The kind of the reason, for counters: one word; by default that of the status.
    """
    told = reason if settings.DEBUG else _TOLD_OF_CAUSE.get(cause) or _TOLD.get(status, reason)
    response = HttpResponse(f"{told}\n", status=status, content_type="text/plain; charset=utf-8")
    if status == 426:
        response["Sec-WebSocket-Version"] = "13"
    if status in (429, 503):
        response["Retry-After"] = str(_RETRY_AFTER_S)
    cause = cause or _CAUSES.get(status, "other")
    _report(request, status, reason, getattr(logging, level.upper()), cause)
    # Django's own `log_response` takes no further attributes, so it must not log this again.
    mark_as_logged(response)
    announce_refusal(request, status, reason, cause)
    return response


def refuse_move(status: int) -> HttpResponse:
    """Returns a response by which this process refuses a connection of another one, unlogged."""
    response = HttpResponse(status=status)
    mark_as_logged(response)
    return response


def _report(request: HttpRequest, status: int, reason: str, level: int, cause: str) -> None:
    # Those of one cause must not hide those of another one.
    if (more := more_of((status, level, cause))) is None:
        count("websocket.refused", code=status)
        return
    record = Record.of("websocket.refused", request, status, reason)
    text, args = "WebSocket refused with %d: %s: %s%s", (status, record.path, record.reason, more)
    record.log(level, text, *args, status_code=status, request=request)


def announce_refusal(request: HttpRequest, status: int, why: str, cause: str = "view") -> None:
    """Counts a refused handshake, and sends the signal about it."""
    tally.refused(status, cause)
    websocket = request.__dict__.get("websocket")
    signals.send(signals.websocket_refused, websocket, request, status=status, why=why)
