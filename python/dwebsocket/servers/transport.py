"""
The bytes that an ASGI server has yet to send, where they are accessible.

ASGI has no call for that. But the ``send`` of uvicorn is a method of its protocol, which has the
transport of asyncio or uvloop. Without a transport the bytes are not known and cannot be dropped.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from asyncio import WriteTransport


def queued(send: Any) -> int:
    """Gives the bytes that wait for the client in the transport behind ``send``."""
    transport = _find(send)
    return 0 if transport is None else transport.get_write_buffer_size()


def abort(send: Any) -> None:
    """Closes the transport behind ``send`` at once, and drops the bytes that wait in it."""
    if (transport := _find(send)) is not None:
        transport.abort()


def _find(send: Any) -> WriteTransport | None:
    transport = getattr(getattr(send, "__self__", None), "transport", None)
    # Check for the methods: transports of uvloop are not derived from asyncio's class.
    calls = ("get_write_buffer_size", "abort")
    return transport if all(callable(getattr(transport, call, None)) for call in calls) else None
