"""The functions that decorators and middleware call: from a handshake to a response."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asgiref.sync import sync_to_async

from dwebsocket.factory import WebSocketFactory
from dwebsocket.handshake import fallback
from dwebsocket.handshake.response import UpgradeResponse
from dwebsocket.handshake.upgrade_request import UpgradeRequest
from dwebsocket.handshake.validate import validate
from dwebsocket.runners.view import Detached

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.http import HttpRequest, HttpResponse
    from django.http.response import HttpResponseBase

    from dwebsocket.conf import Options

__all__ = ["UpgradeRequest", "aupgrade", "is_ours", "upgrade", "upgrade_inline"]

#: Each may answer a handshake, before it is validated, by the options of its view.
answering_first: list[Callable[[HttpRequest, Options], HttpResponse | None]] = []

# Stands for a view that runs in the server's worker: nothing is started for it.
_INLINE = Detached(lambda request: None)


def upgrade(asked: UpgradeRequest, *, accept: bool = True) -> HttpResponseBase | None:
    """
    Validates a handshake and returns the response that upgrades it, or one that refuses.

    Answers other requests of the fallback, too.

    Args:
        asked: The request.
        accept: With False the view starts now, and this waits for its decision. On a green thread
            only for a sync view: events of an event loop wake no hub.

    Returns:
        None when the view is to answer the request.

    Raises:
        ImproperlyConfigured: A setting is invalid.
        DisallowedHost: As any request with a Host that is not the site's.
        Exception: Anything that a view without ``accept`` lets through.
    """
    if not is_ours(asked):
        return None
    response = _answer(asked)
    if accept or not isinstance(response, UpgradeResponse):
        return response
    with response.asking_view(in_loop=False) as decision:
        decision.decided.wait()
    return response.conclude()


async def aupgrade(asked: UpgradeRequest, *, accept: bool = True) -> HttpResponseBase | None:
    """
    Answers as :func:`upgrade`: validates on the request's own thread, waits in the event loop.

    Raises:
        ImproperlyConfigured, DisallowedHost, Exception: As :func:`upgrade`.
    """
    if not is_ours(asked):
        return None
    # On the request's own thread: some servers need that, and it may query the database.
    response = await sync_to_async(_answer)(asked)
    if accept or not isinstance(response, UpgradeResponse):
        return response
    with response.asking_view(in_loop=True) as decision:
        await decision.decided.wait()
    return response.conclude()


def upgrade_inline(request: HttpRequest) -> HttpResponse:
    """
    Validates a handshake whose view runs in the server's worker.

    Returns:
        A refusal, or an :class:`UpgradeResponse` for :meth:`~UpgradeResponse.open_inline`.

    Raises:
        ImproperlyConfigured, DisallowedHost: As :func:`upgrade`.
    """
    asked = UpgradeRequest(request, _INLINE, (), {}, {})
    asked.factory = WebSocketFactory(request)
    return _answer_handshake(asked)


def is_ours(asked: UpgradeRequest) -> bool:
    """Whether a request is a handshake, or another one of the fallback."""
    return fallback.asks(asked) or asked.is_handshake()


def _answer(asked: UpgradeRequest) -> HttpResponse | None:
    if asked.factory is None:
        response = fallback.answer(asked.request, asked.options)
        # Only now it is noted as a handshake, if it is one.
        if response is not None or not asked.is_handshake():
            return response
        asked.handshake = fallback.handshake_of(asked.request)
    return _answer_handshake(asked)


def _answer_handshake(asked: UpgradeRequest) -> HttpResponse:
    for answer in answering_first:
        if (response := answer(asked.request, asked.options)) is not None:
            return response
    return validate(asked)
