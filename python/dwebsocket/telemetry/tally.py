"""
The tally of this process: its open WebSockets, and counts of those opened, refused and closed.

Messages and bytes are counted by the engine, without Python; here only those of connections that an
ASGI server keeps.
"""

from __future__ import annotations

from collections import deque
from importlib import import_module
from typing import TYPE_CHECKING, Any

from dwebsocket.compat import unpatched
from dwebsocket.compat.system import at_fork

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.http import HttpRequest

    from dwebsocket.api.connection import Connection

    #: For each status or code, the number by cause or side.
    Counts = dict[int, dict[str, int]]
    #: As `_core.Connection.traffic()` gives it.
    Traffic = tuple[int, int, int, int, int, int, int]

# Clients choose close codes: all further ones are counted as this one.
_MOST_CODES, OTHER_CODE = 64, 0
# The part of a traffic that only grows: messages in and out, bytes in and out.
_GROWING = 4

_lock = unpatched.lock()
# By the name of its view, each open WebSocket with its request. There are few views, and so a
# connection costs one entry here and no object. A call of a dictionary is atomic.
_open: dict[str, dict[Any, HttpRequest]] = {}
# Those of them that an ASGI server keeps.
_kept_open: dict[Any, None] = {}
_opened: dict[str, int] = {}
_refused: Counts = {}
_closed: Counts = {}
# Ends that are yet to be counted: code, side, and what an ASGI server's connection has carried.
# `closed()` may run in the garbage collector while this thread holds the lock.
_ends: deque[tuple[int, str, Traffic | None]] = deque()
# What ended connections of ASGI servers have carried, and the highest sum that was reported: one
# that ends just now is in neither of the two parts of the sum for a moment.
_kept_before = [0] * _GROWING
_highest = [0] * _GROWING


def _tell_first() -> None:
    # Imported with the first event: it tells of itself by `tell_of_events`.
    import_module("dwebsocket.operations.survey")
    if _on_event is not _tell_first:
        _on_event()


_on_event: Callable[[], object] = _tell_first


def tell_of_events(call: Callable[[], object]) -> None:
    """Calls ``call`` whenever a WebSocket was opened or refused. It must not sleep, or raise."""
    global _on_event
    _on_event = call


def opened(websocket: Any, view: str, request: HttpRequest) -> None:
    """Notes that a WebSocket is open. Never waits."""
    with _lock:
        _count_ends()
        _opened[view] = _opened.get(view, 0) + 1
        of_view = _open.setdefault(view, {})
    if is_kept(websocket._connection):
        _kept_open[websocket] = None
    of_view[websocket] = request
    _on_event()


def closed(websocket: Any) -> None:
    """Notes that a WebSocket's view is over. May be repeated, and for one that was never open."""
    if all(of_view.pop(websocket, None) is None for of_view in list(_open.values())):
        return
    _kept_open.pop(websocket, None)
    connection: Connection = websocket._connection
    code, _, by = connection.end() or (OTHER_CODE, "", "lost")
    _ends.append((code, by, connection.traffic() if is_kept(connection) else None))


def refused(status: int, cause: str) -> None:
    """Notes that a handshake was refused. Never waits."""
    with _lock:
        _add(_refused, status, cause)
    _on_event()


def _count_ends() -> None:
    """Counts what waits in `_ends`. To be called under the lock."""
    while _ends:
        code, by, carried = _ends.popleft()
        if code not in _closed and len(_closed) >= _MOST_CODES:
            code = OTHER_CODE
        _add(_closed, code, by)
        if carried is not None:
            for index in range(_GROWING):
                _kept_before[index] += carried[index]


def _add(counts: Counts, code: int, name: str) -> None:
    by_name = counts.setdefault(code, {})
    by_name[name] = by_name.get(name, 0) + 1


def is_kept(connection: Any) -> bool:
    """Whether an ASGI server keeps this connection, so that the engine does not count for it."""
    return bool(getattr(connection, "is_kept", False))


def open_websockets() -> list[tuple[Any, str, HttpRequest]]:
    """Returns the WebSockets whose view runs, with its name and their request."""
    return [
        (websocket, view, request)
        for view, of_view in list(_open.items())
        for websocket, request in list(of_view.items())
    ]


def counts() -> tuple[dict[str, int], Counts, Counts]:
    """
    Returns how many were opened by view, refused by status and cause, closed by code and side.
    """
    with _lock:
        _count_ends()
        by_cause = {status: dict(causes) for status, causes in _refused.items()}
        by_side = {code: dict(sides) for code, sides in _closed.items()}
        return dict(_opened), by_cause, by_side


def kept() -> tuple[int, list[int]]:
    """
    Returns the number of open connections that ASGI servers keep, and the traffic of all those.
    """
    connections = [websocket._connection for websocket in list(_kept_open)]
    found = [0] * 7
    for connection in connections:
        for index, number in enumerate(connection.traffic()):
            found[index] += number
    with _lock:
        _count_ends()
        for index in range(_GROWING):
            _highest[index] = max(_highest[index], found[index] + _kept_before[index])
            found[index] = _highest[index]
    return len(connections), found


def _forget_parents_tally() -> None:
    global _lock
    _lock = unpatched.lock()
    for each in (_open, _kept_open, _opened, _refused, _closed, _ends):
        each.clear()
    _kept_before[:] = _highest[:] = [0] * _GROWING


at_fork(_forget_parents_tally)
