"""
Whether the request that Django is looking for a view for asks for a WebSocket.

Patterns of the URL conf are given a path, and no request. Under WSGI Django's signal for each
request comes on the same thread; under ASGI it does not come in the request's task, so that
:mod:`dwebsocket.asgi` notes it.
"""

from __future__ import annotations

import functools
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from django.core.signals import request_finished, request_started

if TYPE_CHECKING:
    from collections.abc import Mapping

_is_websocket = ContextVar("_is_websocket", default=False)
_TRANSPORTS = ("transport=sse", "transport=polling")


#: Whether the request asks for a WebSocket, or for what stands in for one over HTTP.
is_websocket = _is_websocket.get


def note(*, is_websocket: bool) -> None:
    """Notes it for the request of this task."""
    _is_websocket.set(is_websocket)


def _on_request(environ: Mapping[str, Any] | None = None, **_: Any) -> None:
    if environ is not None:
        query = environ.get("QUERY_STRING", "").split("&")
        note(
            is_websocket=environ.get("HTTP_UPGRADE", "").strip().lower() == "websocket"
            or any(transport in query for transport in _TRANSPORTS)
        )


def _on_end(**_: Any) -> None:
    note(is_websocket=False)


@functools.cache
def watch() -> None:
    """Notes it for each request under WSGI, from now on."""
    request_started.connect(_on_request, dispatch_uid="dwebsocket.asking")
    request_finished.connect(_on_end, dispatch_uid="dwebsocket.asking")
