"""
A project's own middleware may open WebSockets: their views run on the server's thread.

Such middleware makes a WebSocket of each handshake and calls its ``accept_connection()`` before the
view, as the original's does. The client is taken over at that moment. The server writes the
response to a placeholder. The connection is closed together with the response.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from django.core.exceptions import BadRequest, PermissionDenied
from django.http import HttpResponse

from dwebsocket.api.base import own_websocket
from dwebsocket.api.waiting.steps import run
from dwebsocket.exceptions import UnsupportedServer
from dwebsocket.handshake.response import UpgradeResponse
from dwebsocket.handshake.upgrade import upgrade_inline
from dwebsocket.handshake.upgrade_request import is_open
from dwebsocket.runners.outcome import refuse_if_unseen
from dwebsocket.runners.view import end_beside, witness
from dwebsocket.telemetry.records import report_end
from dwebsocket.websocket import WebSocket

if TYPE_CHECKING:
    from django.http import HttpRequest

_ADVICE = "Refuse it before accept_connection(): then it is the answer to the handshake"
_NORMAL = 1000
_FORBIDDEN = 403


def open_now(websocket: WebSocket, request: HttpRequest) -> None:
    """
    Opens ``websocket`` behind ``request``, whose view is about to be called.

    Args:
        websocket: What a factory has made of the request, not open yet.
        request: A handshake, well-formed or not.

    Raises:
        PermissionDenied, BadRequest: It is refused, and logged as such.
        UnsupportedServer: The test kit's client waits for the response before it talks.
        ImproperlyConfigured: A setting is invalid.
    """
    if witness.get() is not None:
        raise UnsupportedServer(
            "accept_connection() lets the view run within its handshake, and this test client "
            "talks after it: use a live server, or decorate the view"
        )
    request.__dict__["websocket"] = websocket
    request.__dict__.setdefault("is_websocket", functools.partial(bool, True))  # noqa: FBT003
    opening = upgrade_inline(request)
    if not isinstance(opening, UpgradeResponse):
        # As Django answers any request that is refused.
        kind = PermissionDenied if opening.status_code == _FORBIDDEN else BadRequest
        raise kind(opening.content.decode().strip())
    opening.open_inline()
    if websocket._connection is None:
        # The client was lost while it was taken over. The view sees a client that has gone.
        websocket._never_open()
    own_websocket.set(websocket)
    websocket._view_request = request
    # Every response of Django's closes its request, in the thread that ran the view.
    request.__dict__["close"] = _Close(request, websocket, opening)
    if websocket._was_opened:
        run(websocket._announce_opening(request))


def with_response(request: HttpRequest, response: Any) -> Any:
    """Returns a view's ``response``, an empty one in place of None if it ran behind a WebSocket."""
    if not is_open(request):
        return response
    if response is None:
        return HttpResponse()
    if isinstance(request.__dict__.get("close"), _Close):
        refuse_if_unseen(response, request, request.__dict__["websocket"], _ADVICE)
    return response


class _Close:
    """Ends a WebSocket with its response, in the place of the request's own ``close``."""

    def __init__(
        self, request: HttpRequest, websocket: WebSocket, opening: UpgradeResponse
    ) -> None:
        self._ends: tuple[HttpRequest, WebSocket, UpgradeResponse] | None = (
            request,
            websocket,
            opening,
        )

    def __call__(self) -> None:
        # The response may keep this object: drop the references that it holds.
        ends, self._ends = self._ends, None
        if ends is None:
            return
        request, websocket, opening = ends
        request.__dict__.pop("close", None)
        try:
            websocket._finish(_NORMAL, "")
            run(end_beside(websocket))
            if (unwanted := websocket._unwanted_end()) is not None:
                report_end(request, *unwanted, is_expelled=websocket._was_expelled())
        finally:
            opening.release()
            if websocket._held is not None:
                # The worker's database connections stay open after the view: stop watching them.
                websocket._held.end()
            if own_websocket.get() is websocket:
                own_websocket.set(None)
            request.close()


# The API may not import this room.
WebSocket._open_inline = open_now
