"""The test project with a page that its server gets at once, as much as it is."""

from __future__ import annotations

from typing import Any

from project.asgi import application as project

# More than the system takes for a client that reads nothing.
SIZE = 2**25


async def application(scope: Any, receive: Any, send: Any) -> None:
    """Serve the page by one event, for which no server makes its application wait."""
    if scope["type"] != "http" or scope["path"] != "/unread/":
        await project(scope, receive, send)
        return
    headers = [(b"content-length", str(SIZE).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": bytes(SIZE)})
