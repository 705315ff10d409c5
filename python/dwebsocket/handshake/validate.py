"""
Validating a handshake: all checks, before the connection is taken over from the server.

So every refusal is an ordinary response, which passes through all middleware.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dwebsocket import _core, conf
from dwebsocket.exceptions import GroupUnavailable, UnsupportedServer
from dwebsocket.groups.view_groups import ImpossibleName
from dwebsocket.handshake import origin
from dwebsocket.handshake.refusal import refuse
from dwebsocket.handshake.response import UpgradeResponse
from dwebsocket.handshake.start import Start
from dwebsocket.handshake.upgrade_request import make
from dwebsocket.request import worlds
from dwebsocket.runners import shutdown
from dwebsocket.users import registry

if TYPE_CHECKING:
    from django.http import HttpResponse
    from typing_extensions import Self

    from dwebsocket.groups.view_groups import Joins
    from dwebsocket.handshake.upgrade_request import UpgradeRequest
    from dwebsocket.servers.handshake import Refusal
    from dwebsocket.websocket import WebSocket


def validate(asked: UpgradeRequest) -> HttpResponse:
    """
    Returns the response that upgrades a handshake, or one that refuses it.

    Raises:
        ImproperlyConfigured: A setting is invalid.
        DisallowedHost: As any request with a Host that is not the site's.
    """
    with _Reservation(conf.Admission.current(asked.now)) as reserved:
        for check in _CHECKS:
            if (refusal := check(asked, reserved)) is not None:
                break
        else:
            return reserved.hand_over(asked)
    return refuse(asked.request, *refusal)


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

    __slots__ = ("admission", "joins", "permit", "visitor", "websocket")

    websocket: WebSocket

    def __init__(self, admission: conf.Admission) -> None:
        self.admission = admission
        self.permit: _core.Permit | None = None
        self.visitor: registry.Visitor | None = None
        self.joins: Joins | None = None

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
    largest = reserved.admission.max_handshake_size
    if largest is None or (size := asked.handshake.size) <= largest:
        return None
    limit = f"the {largest} of {conf.PREFIX}MAX_HANDSHAKE_SIZE"
    return 431, f"The handshake has {size} bytes, more than {limit}."


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
    reserved.websocket = websocket
    return None


def _process(_: UpgradeRequest, __: _Reservation) -> Refusal | None:
    if not _core.is_leaving():
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
    websocket._realm = who.realm
    if visitor is not None:
        reserved.visitor = visitor
        websocket._on_finish = visitor.leave
        websocket._visitor_names = who.user, who.session
    return None


def _resources(asked: UpgradeRequest, reserved: _Reservation) -> Refusal | None:
    handshake, visitor = asked.handshake, reserved.visitor
    user = "" if visitor is None else visitor.who.user_key
    try:
        if not shutdown.has_begun():
            shutdown.begin(
                dies_of_sigterm=handshake.client.dies_of_sigterm,
                shutdown_plan=handshake.client.shutdown_plan,
                at_exit=handshake.client.at_exit,
            )
        handshake.prepare()
        reserved.joins = asked.groups.joins(asked.given, asked.args, asked.kwargs, user)
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
