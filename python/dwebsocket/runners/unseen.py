"""
Refusals that come too late: responses that a view returns behind an open WebSocket.

The client already has its 101. A page that a view returns at its end does not matter. But a
redirect or an error comes from a decorator below ours, such as ``login_required``, which was meant
to refuse the client.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from django.conf import settings
from django.http.response import HttpResponseBase

from dwebsocket.telemetry.records import Record

if TYPE_CHECKING:
    from django.http import HttpRequest

    from dwebsocket.websocket import WebSocket

_log = logging.getLogger("dwebsocket")

_POLICY = 1008
_MAX_REASON_BYTES = 123
# Responses with a status below this are no refusals.
_REDIRECTION = 300


_ADVICE = (
    "Put the decorator that refuses above accept_websocket, or let the view decide with "
    "accept_websocket(accept=False)"
)


def refuse_if_unseen(
    result: object, request: HttpRequest, websocket: WebSocket, advice: str = _ADVICE
) -> None:
    """
    Closes with 1008, and one warning, if ``result`` refuses a client that is still there.

    Args:
        result: The result of the view behind the open ``websocket``.
        advice: The advice for the log record.
    """
    if not isinstance(result, HttpResponseBase) or result.status_code < _REDIRECTION:
        return
    if websocket._is_over:
        return
    status, connection = result.status_code, websocket._connection
    what = f"{type(result).__name__} with status {status}"
    number = None if connection is None else connection.id
    record = Record.of("websocket.unseen_response", request, _POLICY, what, number)
    record.log(
        _log,
        logging.WARNING,
        "A WebSocket view returned a response that its client cannot see: %s: %s. %s",
        *(record.path, record.reason, advice),
        status_code=status,
        request=request,
    )
    reason = f"{what}: see the log".encode()[:_MAX_REASON_BYTES] if settings.DEBUG else b""
    websocket._close_wanted(_POLICY, reason.decode(errors="ignore"))
