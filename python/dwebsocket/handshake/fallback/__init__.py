"""
The fallback at the URL of a view: clients whose WebSockets do not open use HTTP.

``GET ?transport=sse`` opens a connection whose messages to the client are server-sent events, and
``GET ?transport=polling`` one whose client then polls by ``GET ?transport=polling&id=…&ack=…``
(:mod:`.polling`). The first two are validated as any handshake. ``POST ?transport=…&id=…`` brings
messages from the client (:mod:`.posting`). Other requests are the view's, as before.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from django.middleware.csrf import get_token

from dwebsocket import conf
from dwebsocket.exceptions import GroupUnavailable
from dwebsocket.handshake import origin
from dwebsocket.handshake.fallback import forwarding, polling, posting
from dwebsocket.handshake.refusal import refuse
from dwebsocket.handshake.upgrade_request import has_websocket, note_plain
from dwebsocket.request import BY_FALLBACK, worlds
from dwebsocket.servers.asgi.fallback import AsgiEventStreamHandshake, AsgiPollingHandshake
from dwebsocket.servers.fallback import EventStreamHandshake, PollingHandshake

if TYPE_CHECKING:
    from django.http import HttpRequest, HttpResponse

    from dwebsocket.handshake.upgrade_request import UpgradeRequest
    from dwebsocket.servers.handshake import Handshake

_UNDER_WSGI = {"sse": EventStreamHandshake, "polling": PollingHandshake}
_UNDER_ASGI = {"sse": AsgiEventStreamHandshake, "polling": AsgiPollingHandshake}


def asks(asked: UpgradeRequest) -> bool:
    """Whether a request is one of the fallback's, right or wrong, and the view has a fallback."""
    request = asked.request
    return (
        "transport" in request.META.get("QUERY_STRING", "")
        and asked.options.fallback
        and "transport" in request.GET
        and "HTTP_SEC_WEBSOCKET_KEY" not in request.META
        and (request.__dict__.get("scope") or {}).get("type") != "websocket"
        and not has_websocket(request)
    )


def answer(request: HttpRequest, options: conf.Options) -> HttpResponse | None:
    """
    Answers one of the fallback's requests; None when it is a handshake, validated as any other.

    Args:
        request: Django's, one that :func:`asks`.
        options: Those of its view.

    Returns:
        403 for a page that may not connect, 410 when there is no such connection for this client;
        or as :func:`.polling.answer` and :func:`.posting.answer`.

    Raises:
        DisallowedHost: As any request with a Host that is not the site's.
    """
    with worlds.entered(worlds.of(request, conf.present())):
        return _answer(request, options)


def handshake_of(request: HttpRequest) -> Handshake:
    """Returns the steps to the connection, for a handshake that :func:`answer` has let through."""
    scope = request.__dict__.get("scope")
    kind = (_UNDER_WSGI if scope is None else _UNDER_ASGI)[request.GET["transport"]]
    return kind(request, scope, functools.partial(posting.address, request))


def _answer(request: HttpRequest, options: conf.Options) -> HttpResponse | None:
    note_plain(request)
    transport: Any = request.GET["transport"]
    if transport not in _UNDER_WSGI:
        return refuse(request, 400, "transport must be sse or polling.")
    request.__dict__[BY_FALLBACK] = True
    is_poll = request.method == "GET" and transport == "polling" and "id" in request.GET
    if is_poll or request.method == "POST":
        allowed, required = options.allowed_origins, options.require_origin
        if (objection := origin.objection(request, allowed, required=required)) is not None:
            return refuse(request, 403, objection)
        if (key := posting.key_of(request)) is None:
            return posting.short(410, "There is no such connection.")
        answered = polling.answer if is_poll else posting.answer
        return answered(request, key, options)
    if request.method != "GET":
        return refuse(request, 400, "A connection is opened by GET, and messages come by POST.")
    try:
        # Its POSTs may go to other processes.
        forwarding.node().start()
    except GroupUnavailable as error:
        return refuse(request, 503, str(error), "error", "groups")
    # Django's middleware, or one of the project's derived from it, sets the cookie in the response,
    # so that the first POST can have the token. Without such a middleware nothing is set.
    get_token(request)
    # The answer of middleware about it, before the view was known.
    request.__dict__.pop("is_websocket", None)
    return None
