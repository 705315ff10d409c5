"""The functions that decorators and middleware call: from a handshake to a response."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asgiref.sync import sync_to_async

from dwebsocket.factory import WebSocketFactory
from dwebsocket.handshake.judge import Asked, judge
from dwebsocket.handshake.response import UpgradeResponse
from dwebsocket.runners.view import Detached

if TYPE_CHECKING:
    from django.http import HttpRequest, HttpResponse
    from django.http.response import HttpResponseBase

# Stands for a view that runs in the server's worker: nothing is started for it.
_INLINE = Detached(lambda request: None)


def upgrade(asked: Asked, *, accept: bool = True) -> HttpResponseBase:
    """
    Judges a handshake and gives the response that upgrades it, or one that refuses.

    Args:
        asked: The handshake, even a malformed one, and its view.
        accept: With False the view starts now, and this waits for its decision. On a green thread
            only for a sync view: events of an event loop wake no hub.

    Raises:
        ImproperlyConfigured: A setting is invalid.
        DisallowedHost: As any request with a Host that is not the site's.
        Exception: Anything that a view without ``accept`` lets through.
    """
    response = judge(asked)
    if accept or not isinstance(response, UpgradeResponse):
        return response
    with response.asking_view(in_loop=False) as decision:
        decision.decided.wait()
    return response.conclude()


async def aupgrade(asked: Asked, *, accept: bool = True) -> HttpResponseBase:
    """
    As :func:`upgrade`, for async views: judges on the request's own thread, waits in the loop.

    Raises:
        ImproperlyConfigured, DisallowedHost, Exception: As :func:`upgrade`.
    """
    # On the request's own thread: some servers need that, and it may query the database.
    response = await sync_to_async(judge)(asked)
    if accept or not isinstance(response, UpgradeResponse):
        return response
    with response.asking_view(in_loop=True) as decision:
        await decision.decided.wait()
    return response.conclude()


def upgrade_inline(request: HttpRequest) -> HttpResponse:
    """
    Judges a handshake whose view runs in the server's worker.

    Returns:
        A refusal, or an :class:`UpgradeResponse` for :meth:`~UpgradeResponse.open_inline`.

    Raises:
        ImproperlyConfigured, DisallowedHost: As :func:`upgrade`.
    """
    return judge(Asked(request, WebSocketFactory(request), _INLINE, (), {}, {}))
