"""Views that wait for the end."""

from __future__ import annotations

from typing import Any

from dwebsocket import accept_websocket


@accept_websocket
def waits(request: Any) -> None:
    """Wait for the end."""
    request.websocket.wait()


@accept_websocket
async def awaits(request: Any) -> None:
    """Wait for the end in a task."""
    async for _ in request.websocket:
        pass
