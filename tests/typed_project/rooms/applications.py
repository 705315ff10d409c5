"""An ASGI application."""

from collections.abc import Awaitable, Callable
from typing import Any

Event = dict[str, Any]


async def echo(
    scope: Event, receive: Callable[[], Awaitable[Event]], send: Callable[[Event], Awaitable[None]]
) -> None:
    """Sends one message back."""
    await receive()
    await send({"type": "websocket.accept", "subprotocol": scope["subprotocols"][:1] or None})
    event = await receive()
    await send({"type": "websocket.send", "text": event["text"]})
