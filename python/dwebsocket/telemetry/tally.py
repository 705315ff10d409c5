"""
The tally of this process: its open WebSockets, and counts of those opened, refused and closed.

Messages and bytes are counted by the engine, without Python.
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

    #: For each status or code, the number by cause or side.
    Counts = dict[int, dict[str, int]]

# Clients choose close codes: all further ones are counted as this one.
_MOST_CODES, OTHER_CODE = 64, 0

_lock = unpatched.lock()
# By the name of its view, each open WebSocket with its request. There are few views, and so a
# connection costs one entry here and no object. A call of a dictionary is atomic.
_open: dict[str, dict[Any, HttpRequest]] = {}
_opened: dict[str, int] = {}
_refused: Counts = {}
_closed: Counts = {}
#: How many came from another process, went to one, and were refused by all others.
_handed_over = {"in": 0, "out": 0, "refused": 0}
# Ends that are yet to be counted: code and side. `closed()` may run in the garbage collector while
# this thread holds the lock.
_ends: deque[tuple[int, str]] = deque()


def _tell_first() -> None:
    # Imported with the first event: its `survey` tells of itself by `tell_of_events`. The package,
    # not the module: another thread may be importing the package, and would wait for this one.
    import_module("dwebsocket.operations")
    if _on_event is not _tell_first:
        _on_event()


_on_event: Callable[[], object] = _tell_first


def tell_of_events(call: Callable[[], object]) -> None:
    """Calls ``call`` whenever a WebSocket was opened or refused. It must not sleep, or raise."""
    global _on_event
    _on_event = call


def opened(websocket: Any, view: str, request: HttpRequest, *, is_new: bool = True) -> None:
    """Notes that a WebSocket is open, in another process before if not ``is_new``. Never waits."""
    with _lock:
        _count_ends()
        _opened[view] = _opened.get(view, 0) + is_new
        websockets = _open.setdefault(view, {})
    websockets[websocket] = request
    _on_event()


def closed(websocket: Any) -> None:
    """Notes that a WebSocket's view is over. May be repeated, and for one that was never open."""
    if all(websockets.pop(websocket, None) is None for websockets in list(_open.values())):
        return
    code, _, by = websocket._connection.end() or (OTHER_CODE, "", "lost")
    _ends.append((code, by))


def moved(websocket: Any) -> None:
    """Notes that another process goes on with a WebSocket: here it is neither open nor closed."""
    for websockets in list(_open.values()):
        websockets.pop(websocket, None)


def handed_over(what: str) -> None:
    """Counts a move: ``"in"``, ``"out"`` or ``"refused"``. Never waits."""
    with _lock:
        _handed_over[what] += 1
    _on_event()


def handovers() -> dict[str, int]:
    """Returns the counts of :func:`handed_over`."""
    return dict(_handed_over)


def refused(status: int, cause: str) -> None:
    """Notes that a handshake was refused. Never waits."""
    with _lock:
        _add(_refused, status, cause)
    _on_event()


def _count_ends() -> None:
    """Counts what waits in `_ends`. To be called under the lock."""
    while _ends:
        code, by = _ends.popleft()
        if code not in _closed and len(_closed) >= _MOST_CODES:
            code = OTHER_CODE
        _add(_closed, code, by)


def _add(counts: Counts, code: int, name: str) -> None:
    by_name = counts.setdefault(code, {})
    by_name[name] = by_name.get(name, 0) + 1


def open_websockets() -> list[tuple[Any, str, HttpRequest]]:
    """Returns the WebSockets whose view runs, with its name and their request."""
    return [
        (websocket, view, request)
        for view, websockets in list(_open.items())
        for websocket, request in list(websockets.items())
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


def _forget_parents_tally() -> None:
    global _lock
    _lock = unpatched.lock()
    for each in (_open, _opened, _refused, _closed, _ends):
        each.clear()
    _handed_over.update(dict.fromkeys(_handed_over, 0))


at_fork(_forget_parents_tally)
