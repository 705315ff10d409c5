"""Undocumented parts of granian: the class whose ``send`` an ASGI application gets."""

from __future__ import annotations


def is_sender(send: object) -> bool:
    """
    Whether granian gave ``send`` to the application, a method of its ``ASGIWebsocketProtocol``.

    Version 2. Where the class has another name the server is taken for any other; a
    refusal with two headers of one name then fails there.
    """
    return type(getattr(send, "__self__", None)).__name__.startswith("ASGIWebsocket")
