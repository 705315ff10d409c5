"""
Judging a handshake: all checks, before the connection is taken over from the server.

So every refusal is an ordinary response, which passes through all middleware.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dwebsocket import _core, conf
from dwebsocket.exceptions import GroupUnavailable, UnsupportedServer
from dwebsocket.groups import presence
from dwebsocket.groups.of_view import ImpossibleName, Joins
from dwebsocket.groups.recovering import Resumption
from dwebsocket.handshake import origin, posting, site_report
from dwebsocket.handshake.attributes import make
from dwebsocket.handshake.refusal import refuse
from dwebsocket.handshake.response import UpgradeResponse
from dwebsocket.handshake.start import Start
from dwebsocket.request import http_request, transport_of, worlds
from dwebsocket.runners import shutdown
from dwebsocket.servers.asgi import SCOPE_KEY, AsgiHandshake
from dwebsocket.servers.asgi.fallback import AsgiEventStreamHandshake, AsgiPollingHandshake
from dwebsocket.servers.fallback import EventStreamHandshake, PollingHandshake
from dwebsocket.servers.wsgi import WsgiHandshake
from dwebsocket.users import registry

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from django.http import HttpRequest, HttpResponse

    from dwebsocket.factory import WebSocketFactory
    from dwebsocket.groups.api import Group
    from dwebsocket.groups.of_view import ViewGroups
    from dwebsocket.runners.view import Detached
    from dwebsocket.servers.handshake import Handshake

# The handshakes of the fallback.
_UNDER_WSGI = {"sse": EventStreamHandshake, "polling": PollingHandshake}
_UNDER_ASGI = {"sse": AsgiEventStreamHandshake, "polling": AsgiPollingHandshake}


@dataclass(slots=True)
class Asked:
    """
    A handshake, and the view that it asks for.

    Never changed; making a frozen one would take several times as long.

    Attributes:
        request: A handshake, even a malformed one. The view gets it as it is; everything else
            uses Django's request, which it may wrap.
        factory: The result of :func:`~dwebsocket.handshake.attributes.prepare` for it.
        view: The view behind the WebSocket, run as ``view.call(request, *args, **kwargs)``.
        overrides: Options of this view that differ from the project's settings.
        groups: The groups of this view's decorator.
        new_start: Makes what starts the view.
    """

    request: HttpRequest
    factory: WebSocketFactory
    view: Detached
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    overrides: Mapping[str, Any]
    groups: ViewGroups | None = None
    new_start: Callable[..., Start] = Start


def judge(asked: Asked) -> HttpResponse:
    """
    Gives the response that upgrades a handshake, or one that refuses it.

    Raises:
        ImproperlyConfigured: A setting is invalid.
        DisallowedHost: As any request with a Host that is not the site's.
    """
    request = http_request(asked.request)
    wrapping = None if asked.request is request else asked.request
    now = conf.present()
    options = conf.Options.current(asked.overrides, now)
    if (report := site_report.answer(request, options)) is not None:
        return report
    handshake = _handshake_of(request)
    admission = conf.Admission.current(now)
    largest = admission.max_handshake_size
    if largest is not None and (size := handshake.size) > largest:
        limit = f"the {largest} of {conf.PREFIX}MAX_HANDSHAKE_SIZE"
        return refuse(request, 431, f"The handshake has {size} bytes, more than {limit}.")
    if (refusal := handshake.judge()) is not None:
        return refuse(request, *refusal)
    objection = origin.objection(
        request, options.allowed_origins, required=options.require_origin, now=now
    )
    if objection is not None:
        return refuse(request, 403, objection)
    try:
        handshake.find()
    except UnsupportedServer as error:
        return refuse(request, 501, str(error), level="error")
    websocket = make(request, asked.factory)
    if isinstance(websocket, str):
        return refuse(request, 400, websocket, cause="factory")
    websocket._transport = transport_of(request)
    if _core.is_leaving():
        reason = "This process is ending and takes no new WebSocket."
        return refuse(request, 503, reason, "info", "leaving")
    # Claim a permit first: `Who.of()` may cost queries, and a flood of handshakes must not.
    most = admission.max_connections
    permit = _core.Permit.claim(most)
    if permit is None:
        reason = f"All {most} connections of WEBSOCKET_MAX_CONNECTIONS are taken."
        return refuse(request, 503, reason, cause="max_connections")
    try:
        websocket._world = worlds.of(request, now)
        who = registry.Who.of(request, now)
        visitor = registry.enter(who, websocket, admission)
    except BaseException:
        permit.release()
        raise
    if isinstance(visitor, str):
        permit.release()
        return refuse(request, 429, visitor)
    websocket._realm = who.realm
    if visitor is not None:
        websocket._on_finish = visitor.leave
        websocket._visitor_names = who.user, who.session
    try:
        if not shutdown.has_begun():
            shutdown.begin(
                dies_of_sigterm=handshake.dies_of_sigterm,
                departure=handshake.departure,
                at_exit=handshake.at_exit,
            )
        handshake.prepare()
        joins = _joins(asked, visitor)
    except BaseException as error:
        websocket._leave()
        permit.release()
        if isinstance(error, ImpossibleName):
            return refuse(request, 404, f"This address has no group: {error}.")
        if isinstance(error, GroupUnavailable):
            return refuse(request, 503, str(error), "error", "groups")
        if not isinstance(error, OSError):
            raise
        reason = f"The system has nothing left for another connection: {error}"
        return refuse(request, 503, reason, "error", "resources")
    response = UpgradeResponse(
        request=request,
        handshake=handshake,
        permit=permit,
        options=options,
        websocket=websocket,
        start=asked.new_start(handshake, asked.view, wrapping, asked.args, asked.kwargs),
        visitor=visitor,
        joins=joins,
    )
    websocket._leave_to_response()
    joins.release_with(response)
    if visitor is not None:
        visitor.leave_with(response)
    return response


def _joins(asked: Asked, visitor: registry.Visitor | None) -> Joins:
    """Gives the groups that the connection is to join, all of which are subscribed to."""
    wanted = asked.groups
    groups: list[Group] = []
    resumption = None
    wish = presence.NOTHING
    if wanted is not None:
        groups = wanted.of(asked.request, asked.args, asked.kwargs)
        wish = wanted.wish_of(asked.request, asked.args, asked.kwargs)
        if wanted.resume:
            resumption = Resumption.of(asked.request)
    user = "" if visitor is None else visitor.who.user_key
    if wanted is not None and not wanted.of_user:
        user = ""
    joins = Joins(groups, user, resumption, wish)
    try:
        joins.prepare()
    except BaseException:
        joins.release()
        raise
    return joins


def _handshake_of(request: HttpRequest) -> Handshake:
    # Only requests of ASGI servers have a scope.
    scope = request.__dict__.get("scope")
    transport = transport_of(request)
    if transport != "websocket":
        kind = (_UNDER_WSGI if scope is None else _UNDER_ASGI)[transport]
        return kind(request, scope, functools.partial(posting.address, request))
    if scope is not None:
        handshake = scope.get(SCOPE_KEY)
        if isinstance(handshake, (AsgiHandshake, WsgiHandshake)):
            return handshake
    return WsgiHandshake(request.method or "", request.META, scope)
