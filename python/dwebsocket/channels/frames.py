"""The messages between processes with channels: a word and its arguments, as msgpack."""

from __future__ import annotations

from typing import Any

from dwebsocket.compat.msgpack import pack, unpack


def packed(word: str, *arguments: Any) -> bytes:
    """Gives a frame."""
    return pack([word, *arguments])


def read(frame: str | bytes) -> tuple[str, list[Any]] | None:
    """Gives the word and the arguments of a frame; None for other bytes."""
    try:
        found = unpack(frame) if isinstance(frame, bytes) else None
    except ValueError:
        return None
    if not (isinstance(found, list) and found and isinstance(found[0], str)):
        return None
    return found[0], found[1:]
