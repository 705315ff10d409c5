"""
The messages between processes with channels, as msgpack: a word, when it was said, its arguments.
"""

from __future__ import annotations

import time
from typing import Any

from dwebsocket.compat.msgpack import pack, unpack


def packed(word: str, *arguments: Any) -> bytes:
    """Returns a frame."""
    return pack([word, time.time(), *arguments])


def read(frame: str | bytes) -> tuple[str, float, list[Any]] | None:
    """Returns the word, its time and the arguments of a frame; None for other bytes."""
    try:
        found = unpack(frame) if isinstance(frame, bytes) else None
    except ValueError:
        return None
    match found:
        case [str(word), float(sent_at), *arguments]:
            return word, sent_at, arguments
    return None
