"""The messages that an ASGI application and its server exchange: the ``websocket.send`` events."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from dwebsocket.api.connection import Message

    Event = Mapping[str, Any]
    Receive = Callable[[], Awaitable[Event]]
    Send = Callable[[Event], Awaitable[None]]


def to_event(message: Message, *, binary: bool | None) -> tuple[Event, int]:
    """
    Returns the server's event for a message, and its size; text or binary as ``_core`` decides.
    """
    if not isinstance(message, str) and not binary:
        try:
            message = message.decode()
        except UnicodeDecodeError:
            if binary is False:
                raise ValueError("a text message must be valid UTF-8; use send_bytes()") from None
    elif isinstance(message, str) and binary:
        message = message.encode()
    # Not a subclass of `str`, such as templates make: servers may check for the exact type.
    if isinstance(message, str):
        text = message if type(message) is str else "".join(message)
        return {"type": "websocket.send", "text": text}, size_of(text)
    return {"type": "websocket.send", "bytes": bytes(message)}, len(message)


def size_of(message: Message) -> int:
    """Returns the bytes of a message, text as UTF-8."""
    if isinstance(message, str) and not message.isascii():
        return len(message.encode())
    return len(message)
