"""The content of an offer, and the reasons why a connection cannot be offered."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any

from dwebsocket.compat import unpatched
from dwebsocket.compat.system import renew_at_fork
from dwebsocket.handover import places, requests
from dwebsocket.telemetry import clock
from dwebsocket.telemetry.records import more_of
from dwebsocket.users import authentication

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dwebsocket.groups.backends.contract import Backend
    from dwebsocket.runners.handler import Handled
    from dwebsocket.websocket import WebSocket

_log = logging.getLogger("dwebsocket")

_MOST_STATE_BYTES = 64 * 1024
# The reports that were made: each is made once.
_reported: set[tuple[str, ...]] = set()


class Obstacle(Exception):
    """The connection cannot move. The message is the reason."""


def report(name: str, reason: str, error: Exception | None = None) -> None:
    """Reports that connections of a handler cannot move, once for each reason."""
    text = "WebSockets of %s are closed with 1012 and not handed over: %s"
    _warn_once(text, name, reason, error=error)


def report_heir(reason: str) -> None:
    """Reports that one of several processes takes none of them, once for each reason."""
    _warn_once("Another process cannot go on with WebSockets of this one: %s", reason)


def report_own(reason: str) -> None:
    """Reports that this process takes none of others', once for each reason: each of them asks."""
    _warn_once("This process cannot go on with WebSockets of others: %s", reason)


def _warn_once(text: str, *args: str, error: Exception | None = None) -> None:
    if (text, *args) in _reported:
        return
    _reported.add((text, *args))
    # Each connection may have a reason of its own, such as one with the name of its room.
    if (more := more_of(text)) is not None:
        # Its locks may be green ones.
        unpatched.run_code(lambda: _log.warning(f"{text}%s", *args, more, exc_info=error))


renew_at_fork(globals(), _reported=set)


def obstacle(handler: Handled) -> str | None:
    """Returns the reason why a handler's connection cannot move; None if it can."""
    websocket, connection = handler.websocket, handler.websocket._engine
    if websocket._transport != "websocket":
        return f"the client uses the fallback ({websocket._transport})"
    if websocket._is_bound or connection.is_carried:
        return "its server has the socket, or encrypts"
    if not connection.is_movable:
        return "its compression keeps context between messages (context takeover)"
    if websocket._view is not None:
        return "functions run beside it (start, every or pump)"
    for _, _, backend in memberships(websocket):
        if places.kind_of(backend) is None:
            return f"it is in groups of {backend.settings.backend}"
    return places.obstacle(handler)


def memberships(websocket: WebSocket) -> Iterator[tuple[str, str, Backend]]:
    """Yields alias, name and backend of each group of a connection but for those in places."""
    for alias, name, backend in places.groups_of(websocket):
        if not places.is_special(backend, name):
            yield alias, name, backend


def state_of(handler: Handled) -> dict[str, Any]:
    """
    Returns a handler's ``state``.

    Raises:
        Obstacle: It is no dict of what JSON can represent, or too large.
    """
    return _plain(handler.state, "its state")


def _plain(state: Any, what: str) -> dict[str, Any]:
    try:
        text = json.dumps(state, allow_nan=False, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise Obstacle(f"JSON cannot represent {what}: {error}") from None
    if not isinstance(state, dict) or json.loads(text) != state:
        raise Obstacle(f"{what} is no dict of plain values: keys are str, and lists no tuples")
    if len(text.encode("utf-8", "surrogatepass")) > _MOST_STATE_BYTES:
        raise Obstacle(f"{what} has more than {_MOST_STATE_BYTES} bytes")
    return state


def offer_of(handler: Handled) -> dict[str, Any]:
    """
    Returns what an heir has to know of a parked handler's connection before it says yes.

    Raises:
        Obstacle: It cannot move.
    """
    if (reason := obstacle(handler)) is not None:
        raise Obstacle(reason)
    websocket = handler.websocket
    joined = list(memberships(websocket))
    rooms = handler._pack_rooms()
    for each in () if rooms is None else rooms["rooms"]:
        _plain(each["state"], "the state of a room")
    tick_in = None
    if handler._plan.every is not None and handler._cancel_tick is not None:
        tick_in = max(0.0, handler._due - clock.now())
    return {
        "meta": requests.meta_of(handler.request),
        "id": websocket._id,
        "user": websocket._visitor_names[0],
        "login": authentication.login_of(handler.request),
        "opened_at": websocket._opened_at,
        "version": repr(type(handler).version),
        "state": state_of(handler),
        "tick_in": tick_in,
        "subprotocol": websocket._subprotocol,
        "agreement": websocket._engine.agreement,
        "places": list(places.of(handler)),
        "rooms": rooms,
        "groups": [(alias, name) for alias, name, _ in joined],
        "backends": {alias: places.kind_of(backend) for alias, _, backend in joined},
    }
