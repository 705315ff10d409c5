"""
The bytes that an ASGI server has yet to send.

ASGI has no call for that. But the ``send`` of uvicorn is a bound method of its protocol object, and
that has ``transport``, of asyncio or uvloop. Elsewhere the bytes are not known: they count as none,
and are not dropped.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from asyncio import WriteTransport


def queued(send: Any) -> int:
    """Gives the bytes that wait for the client in the transport behind ``send``."""
    transport = _transport_of(send)
    return 0 if transport is None else transport.get_write_buffer_size()


def abort(send: Any) -> None:
    """Closes the transport behind ``send`` at once, and drops the bytes that wait in it."""
    if (transport := _transport_of(send)) is not None:
        transport.abort()


def _transport_of(send: Any) -> WriteTransport | None:
    transport = getattr(getattr(send, "__self__", None), "transport", None)
    # Check for the methods: transports of uvloop are not derived from asyncio's class.
    calls = ("get_write_buffer_size", "abort")
    return transport if all(callable(getattr(transport, call, None)) for call in calls) else None
