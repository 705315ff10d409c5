"""
The fallback at the URL of a view: clients whose WebSockets do not open use HTTP.

``GET ?transport=sse`` opens a connection whose messages to the client are server-sent events, and
``GET ?transport=polling`` one whose client then polls by ``GET ?transport=polling&id=…&ack=…``
(:mod:`dwebsocket.handshake.polling`). The first two are judged as any handshake. ``POST
?transport=…&id=…`` brings messages from the client (:mod:`dwebsocket.handshake.posting`). Other
requests are the view's, as before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from asgiref.sync import sync_to_async
from django.middleware.csrf import get_token

from dwebsocket import conf
from dwebsocket.compat.system import NO_ENGINE, needs_engine
from dwebsocket.exceptions import GroupUnavailable
from dwebsocket.handshake import forwarding, polling, posting
from dwebsocket.handshake.attributes import has_websocket
from dwebsocket.handshake.refusal import refuse
from dwebsocket.request import ask_for, http_request, worlds

if TYPE_CHECKING:
    from collections.abc import Mapping

    from django.http import HttpRequest, HttpResponse

_TRANSPORTS = ("sse", "polling")


def asks(request: Any, overrides: Mapping[str, Any]) -> bool:
    """
    Whether a request is one of the fallback's, right or wrong, and the view has a fallback.

    Args:
        request: Django's, or one that wraps it.
        overrides: Options of the view that differ from the project's settings.
    """
    request = http_request(request)
    return (
        "transport" in request.META.get("QUERY_STRING", "")
        and conf.Options.current(overrides).fallback
        and "transport" in request.GET
        and "HTTP_SEC_WEBSOCKET_KEY" not in request.META
        and (request.__dict__.get("scope") or {}).get("type") != "websocket"
        and not has_websocket(request)
    )


def answer(request: Any, overrides: Mapping[str, Any]) -> HttpResponse | None:
    """
    Answers one of the fallback's requests; None when it is a handshake, to be judged as any other.

    Args:
        request: One for which :func:`asks` is True.
        overrides: As there.
    """
    request = http_request(request)
    with worlds.entered(worlds.of(request, conf.present())):
        return _answer(request, overrides)


def _answer(request: HttpRequest, overrides: Mapping[str, Any]) -> HttpResponse | None:
    if NO_ENGINE:
        return refuse(request, 501, needs_engine("The fallback of WebSockets"), "error")
    transport: Any = request.GET["transport"]
    if transport not in _TRANSPORTS:
        return refuse(request, 400, "transport must be sse or polling.")
    ask_for(request, transport)
    if request.method == "POST":
        return posting.answer(request, conf.Options.current(overrides))
    if request.method != "GET":
        return refuse(request, 400, "A connection is opened by GET, and messages come by POST.")
    if transport == "polling" and "id" in request.GET:
        return polling.answer(request, conf.Options.current(overrides))
    try:
        # Its POSTs may go to other processes.
        forwarding.node().start()
    except GroupUnavailable as error:
        return refuse(request, 503, str(error), "error", "groups")
    # Django's middleware, or one of the project's derived from it, sets the cookie in the response,
    # so that the first POST can have the token. Without such a middleware nothing is set.
    get_token(request)
    return None


async def aanswer(request: Any, overrides: Mapping[str, Any]) -> HttpResponse | None:
    """As :func:`answer`, for async views."""
    # On the request's own thread: it may read the session, and a large body.
    return await sync_to_async(answer)(request, overrides)
