"""Undocumented parts of eventlet, versions 0.33 to 0.41: its hub of this thread, and more."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from dwebsocket.compat.missing import MissingPart

if TYPE_CHECKING:
    import selectors
    from collections.abc import Callable

BODY, HANDLERS = "eventlet.input", "eventlet.set_idle"


def hub_getter() -> Callable[[], Any]:
    """
    Returns a function that returns this thread's hub, or None; it never makes a hub.

    ``eventlet.hubs._threadlocal.hub``, in all these versions. Imports eventlet.

    Raises:
        MissingPart: It is missing. ``eventlet.hubs.get_hub`` would make a hub for each thread.
    """
    from eventlet import hubs

    if not hasattr(hubs, "_threadlocal"):
        raise MissingPart("eventlet", "eventlet.hubs._threadlocal")

    def current_hub() -> Any:
        return getattr(hubs._threadlocal, "hub", None)

    return current_hub


def is_in_green_thread() -> bool:
    """Whether a green thread of eventlet runs this: one with a parent. Imports nothing."""
    eventlet = sys.modules.get("eventlet")
    return eventlet is not None and getattr(eventlet.getcurrent(), "parent", None) is not None


def green_select() -> Callable[[int, float], object] | None:
    """
    Returns a function by which a green thread waits for a readable descriptor, some seconds at
    most.

    None outside green threads of eventlet. Imports nothing that is not there.
    """
    if "eventlet.hubs" not in sys.modules or not is_in_green_thread():
        return None
    from eventlet.green.select import select

    return lambda descriptor, time: select([descriptor], [], [], time)


def protocol(environ: dict[str, Any]) -> str | None:
    """
    Returns the HTTP version of a client of ``eventlet.wsgi``; None for other servers.

    The environ always has HTTP/1.0. Only the server's handler has the actual version
    (``HttpProtocol.request_version``), and the handler is reached only by the closure of a function
    that it gives to applications. Where that is missing: HTTP/1.1, which every browser uses.
    """
    if BODY not in environ:
        return None
    for cell in getattr(environ.get(HANDLERS), "__closure__", None) or ():
        if version := getattr(cell.cell_contents, "request_version", None):
            return str(version)
    return "HTTP/1.1"


def reader_of(body: Any) -> Any:
    """
    Returns the buffered reader below a request's body.

    ``Input.rfile``, in all these versions.

    Raises:
        MissingPart: It is missing, and with it the client's early bytes.
    """
    if not hasattr(body, "rfile"):
        raise MissingPart("eventlet", "eventlet.wsgi.Input.rfile")
    return body.rfile


def system_selector() -> selectors.BaseSelector:
    """
    Returns a selector that blocks a thread of the system, although ``selectors`` is patched.

    ``eventlet.patcher.inject``, in all these versions: it imports ``selectors`` anew, with the
    original ``select``. The patched module has no such selectors any more.

    Raises:
        MissingPart: It is missing.
    """
    patcher = sys.modules["eventlet.patcher"]
    if not hasattr(patcher, "inject"):
        raise MissingPart("eventlet", "eventlet.patcher.inject")
    fresh = patcher.inject("selectors", {}, ("select", patcher.original("select")))
    found: selectors.BaseSelector = fresh.DefaultSelector()
    return found
