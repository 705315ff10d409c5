"""The test project behind ASGI middleware that puts its own ``send`` in the server's place."""

from __future__ import annotations

from typing import Any

from project.asgi import application as project


async def application(scope: Any, receive: Any, send: Any) -> None:
    """Pass each event of a WebSocket on, as tracing does."""

    async def tell(event: Any) -> None:
        await send(event)

    await project(scope, receive, tell if scope["type"] == "websocket" else send)
