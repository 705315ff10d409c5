"""Middleware of a project's own, built on the original's factories, and views behind it."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

from django.http import HttpResponse
from django.utils.deprecation import MiddlewareMixin

from dwebsocket import require_websocket
from dwebsocket.backends.default.factory import WebSocketFactory

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.http import HttpRequest


class OwnMiddleware(MiddlewareMixin):
    """Makes a WebSocket of each handshake, opens it for some views, and closes it after all."""

    def process_request(self, request: HttpRequest) -> None:
        """Make it; plain requests have none."""
        request.websocket = WebSocketFactory(request).create_websocket()
        request.is_websocket = lambda: request.websocket is not None

    def process_view(
        self, request: HttpRequest, view: Callable, args: object, kwargs: object
    ) -> None:
        """Open it; the views with a decorator do so themselves."""
        if request.is_websocket() and getattr(view, "is_opened_by_middleware", False):
            request.websocket.accept_connection()

    def process_response(self, request: HttpRequest, response: HttpResponse) -> HttpResponse:
        """Close it."""
        if request.is_websocket():
            request.websocket.close()
        return response

    def process_exception(self, request: HttpRequest, exception: Exception) -> None:
        """Close it."""
        if request.is_websocket():
            request.websocket.close()


def echo(request: HttpRequest) -> HttpResponse:
    """Echo, or a page."""
    if not request.is_websocket():
        return HttpResponse("a page")
    for message in request.websocket:
        if message is not None:
            request.websocket.send(message)
    return HttpResponse("for nobody")


async def async_echo(request: HttpRequest) -> HttpResponse:
    """Echo in a task."""
    async for message in request.websocket:
        await request.websocket.asend(message)
    return HttpResponse("for nobody")


@require_websocket
def decorated(request: HttpRequest) -> None:
    """Echo once, and return nothing."""
    request.websocket.send(request.websocket.wait())


def raises(request: HttpRequest) -> HttpResponse:
    """Break after a message."""
    request.websocket.wait()
    raise RuntimeError("this view is broken")


def large(request: HttpRequest) -> HttpResponse:
    """Answer with more than any buffer holds, as a page about an error may."""
    request.websocket.wait()
    return HttpResponse(b"x" * (4 * 1024 * 1024))


def alarm(request: HttpRequest) -> HttpResponse:
    """Send from a handler of signals that come while the view waits."""

    def ring(*_: object) -> None:
        request.websocket.send("from a handler of SIGALRM")

    signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, 0.2, 0.2)
    request.websocket.wait()
    signal.setitimer(signal.ITIMER_REAL, 0)
    return HttpResponse("for nobody")


for _view in (echo, async_echo, decorated, raises, large, alarm):
    _view.is_opened_by_middleware = True  # type: ignore[attr-defined]
