"""Views that ping their client, and wait for its end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dwebsocket import UnsupportedServer, require_websocket
from project.async_views import seen

if TYPE_CHECKING:
    from dwebsocket import WebSocketRequest


@require_websocket
def pings(request: WebSocketRequest) -> None:
    """Ping, tell how long that took, and wait for the end."""
    ws = request.websocket
    seen["pings"] = None
    try:
        took = ws.ping(timeout=15)
    except UnsupportedServer:
        ws.send_json({"took": None, "latency": ws.latency})
    else:
        ws.send_json({"took": took, "latency": ws.latency})
    seen["pings"] = ws.wait_closed(15)


@require_websocket
async def async_pings(request: WebSocketRequest) -> None:
    """As above, with the async twins."""
    ws = request.websocket
    seen["async-pings"] = None
    try:
        took = await ws.aping(timeout=15)
    except UnsupportedServer:
        await ws.asend_json({"took": None, "latency": ws.latency})
    else:
        await ws.asend_json({"took": took, "latency": ws.latency})
    seen["async-pings"] = await ws.await_closed(15)
