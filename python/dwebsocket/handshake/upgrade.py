"""
From a handshake to a response: the functions that decorators and middleware call.

All checks come before the connection is taken over from the server, so every refusal is an ordinary
response, which passes through all middleware.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from asgiref.sync import sync_to_async

from dwebsocket import _core, conf
from dwebsocket.exceptions import GroupUnavailable, UnsupportedServer
from dwebsocket.factory import WebSocketFactory
from dwebsocket.groups.view_groups import ImpossibleName
from dwebsocket.handshake import fallback, origin
from dwebsocket.handshake.refusal import refuse, refuse_move
from dwebsocket.handshake.response import UpgradeResponse
from dwebsocket.handshake.start import Start
from dwebsocket.handshake.upgrade_request import UpgradeRequest, make
from dwebsocket.request import worlds
from dwebsocket.runners import moving, shutdown
from dwebsocket.runners.view import Detached
from dwebsocket.users import recheck, registry

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from django.http import HttpRequest, HttpResponse
    from django.http.response import HttpResponseBase
    from typing_extensions import Self

    from dwebsocket.groups.view_groups import Joins
    from dwebsocket.servers.handshake import Refusal
    from dwebsocket.websocket import WebSocket

__all__ = ["UpgradeRequest", "aupgrade", "is_ours", "upgrade", "upgrade_inline"]

#: Each may answer a handshake, before it is validated, by the options of its view.
answering_first: list[Callable[[HttpRequest, conf.Options], HttpResponse | None]] = []

# Stands for a view that runs in the server's worker: nothing is started for it.
_INLINE = Detached(lambda request: None)


#: Goes around the wait of a request for the decision of its view. The test kit changes it.
around_wait: Callable[[], AbstractContextManager[object]] = nullcontext


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
    if accept or _is_settled(asked, response):
        return response
    assert isinstance(response, UpgradeResponse)
    with response.asking_view(in_loop=False) as decision, around_wait():
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
    if accept or _is_settled(asked, response):
        return response
    assert isinstance(response, UpgradeResponse)
    with response.asking_view(in_loop=True) as decision:
        await decision.decided.wait()
    return response.conclude()


def _is_settled(asked: UpgradeRequest, response: HttpResponse | None) -> bool:
    """Whether the view has nothing to decide: it is refused, or has accepted in another process."""
    return not isinstance(response, UpgradeResponse) or asked.handshake.moved is not None


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
    return _validate(asked)


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
    return _validate(asked)


def _validate(asked: UpgradeRequest) -> HttpResponse:
    for answer in answering_first:
        if (response := answer(asked.request, asked.options)) is not None:
            return response
    with _Reservation(conf.Admission.current(asked.now)) as reserved:
        for check in _CHECKS:
            if (refusal := check(asked, reserved)) is not None:
                break
        else:
            return reserved.hand_over(asked)
    if asked.handshake.moved is not None:
        # No client has asked: the process that has the connection reports what becomes of it.
        return refuse_move(refusal[0])
    return refuse(asked.request, *refusal)


@dataclass(eq=False, repr=False, slots=True)
class _Reservation:
    """
    The place of a handshake in this process. The ``with`` ends it unless the response takes it.

    Attributes:
        admission: The limits.
        permit: One of the connections of ``WEBSOCKET_MAX_CONNECTIONS``.
        websocket: The WebSocket, not open yet.
        visitor: Its place in the register.
        joins: The groups that the connection is to join.
    """

    admission: conf.Admission
    permit: _core.Permit | None = None
    websocket: WebSocket = field(init=False)
    visitor: registry.Visitor | None = None
    joins: Joins | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.permit is not None:
            if self.joins is not None:
                self.joins.release()
            self.websocket._leave()
            self.permit.release()

    def hand_over(self, asked: UpgradeRequest) -> UpgradeResponse:
        """Returns the response, which has all of it from now on."""
        assert self.permit is not None
        assert self.joins is not None
        start = (asked.new_start or Start)(asked)
        websocket, visitor, joins = self.websocket, self.visitor, self.joins
        response = UpgradeResponse(asked, self.permit, websocket, start, visitor, joins)
        self.permit = None
        websocket._leave_to_response()
        joins.release_with(response)
        if visitor is not None:
            visitor.leave_with(response)
        return response


# -- the checks: each returns a refusal, or None ---------------------------------------------------


def _size(asked: UpgradeRequest, reserved: _Reservation) -> Refusal | None:
    return asked.handshake.validate_size(reserved.admission.max_handshake_size)


def _headers(asked: UpgradeRequest, _: _Reservation) -> Refusal | None:
    return asked.handshake.validate()


def _origin(asked: UpgradeRequest, _: _Reservation) -> Refusal | None:
    options = asked.options
    objection = origin.objection(
        asked.request, options.allowed_origins, required=options.require_origin, now=asked.now
    )
    return None if objection is None else (403, objection)


def _server(asked: UpgradeRequest, _: _Reservation) -> Refusal | None:
    try:
        asked.handshake.find()
    except UnsupportedServer as error:
        return 501, str(error), "error"
    return None


def _factory(asked: UpgradeRequest, reserved: _Reservation) -> Refusal | None:
    assert asked.factory is not None
    websocket = make(asked.request, asked.factory)
    if isinstance(websocket, str):
        return 400, websocket, "warning", "factory"
    websocket._transport = asked.handshake.transport
    if (moved := asked.handshake.moved) is not None and moved.websocket_id is not None:
        websocket._id = moved.websocket_id
    # Code behind the view may ask for it, as middleware that closes each does.
    reserved.websocket = asked.request.__dict__["websocket"] = websocket
    return None


def _process(_: UpgradeRequest, __: _Reservation) -> Refusal | None:
    if not _core.is_leaving() and not moving.is_closed():
        return None
    return 503, "This process is ending and takes no new WebSocket.", "info", "leaving"


# Before `Who.of()`, which may cost queries: a flood of handshakes must not.
def _permit(_: UpgradeRequest, reserved: _Reservation) -> Refusal | None:
    most = reserved.admission.max_connections
    reserved.permit = _core.Permit.claim(most)
    if reserved.permit is not None:
        return None
    reason = f"All {most} connections of WEBSOCKET_MAX_CONNECTIONS are taken."
    return 503, reason, "warning", "max_connections"


def _visitor(asked: UpgradeRequest, reserved: _Reservation) -> Refusal | None:
    websocket = reserved.websocket
    websocket._world = worlds.of(asked.request, asked.now)
    who = registry.Who.of(asked.request, asked.now)
    visitor = registry.enter(who, websocket, reserved.admission)
    if isinstance(visitor, str):
        return 429, visitor
    websocket._realm = asked.handshake.realm = who.realm
    if visitor is not None:
        recheck.note_request(visitor)
        reserved.visitor = visitor
        websocket._on_finish = visitor.leave
        websocket._visitor_names = who.user, who.session
    return None


def _resources(asked: UpgradeRequest, reserved: _Reservation) -> Refusal | None:
    handshake, visitor = asked.handshake, reserved.visitor
    user = "" if visitor is None else visitor.who.user_key
    try:
        shutdown.begin(
            dies_of_sigterm=handshake.client.dies_of_sigterm,
            shutdown_plan=handshake.client.shutdown_plan,
            at_exit=handshake.client.at_exit,
        )
        handshake.prepare()
        if (moved := handshake.moved) is None:
            reserved.joins = asked.groups.joins(asked.given, asked.args, asked.kwargs, user)
        else:
            reserved.joins = moved.joins()
        reserved.joins.prepare()
    except ImpossibleName as error:
        return 404, f"This address has no group: {error}."
    except GroupUnavailable as error:
        return 503, str(error), "error", "groups"
    except OSError as error:
        reason = f"The system has nothing left for another connection: {error}"
        return 503, reason, "error", "resources"
    return None


_CHECKS = (
    *(_size, _headers, _origin, _server, _factory),
    *(_process, _permit, _visitor, _resources),
)
