"""WebSockets as members of groups."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import TYPE_CHECKING

from dwebsocket.api.base import Base

if TYPE_CHECKING:
    from dwebsocket.groups.backends.contract import Exclude, Member

    #: The argument: a WebSocket, the ``id`` of one, several of either, or None.
    Excluded = Base | str | Iterable[Base | str] | None

_KEY_BYTES = 16
#: The most members that one message can exclude.
MAX_EXCLUDED = 65535


def key_of(name: str) -> bytes:
    """
    Returns the engine's key for ``websocket.id``. Any other text gives one that fits no member.
    """
    return hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=_KEY_BYTES).digest()


def member_of(websocket: Base) -> Member:
    """
    Returns the member that a WebSocket is.

    Raises:
        UsageError: It is not open yet.
    """
    return websocket._engine.as_member()


def joinable(websocket: Base) -> Member | None:
    """
    Returns the member that a WebSocket can become, None for one that is over.

    Raises:
        UsageError: It is not open yet.
    """
    member = member_of(websocket)
    return None if websocket._is_over else member


def excluded(exclude: Excluded) -> tuple[Excluded, Exclude]:
    """
    Returns ``exclude``, an iterable as a list, and the keys of the members that a message is not
    for.

    Args:
        exclude: A WebSocket, the ``id`` of one, several of either, or None.

    Raises:
        TypeError: Anything else.
        ValueError: Too many.
    """
    if exclude is None:
        return None, []
    if isinstance(exclude, (str, Base)):
        each_one = [exclude]
    elif not isinstance(exclude, Iterable) or isinstance(exclude, (bytes, bytearray)):
        raise TypeError(_expected(exclude))
    else:
        # An iterator can be read once.
        exclude = each_one = list(exclude)
    keys = []
    for each in each_one:
        if isinstance(each, Base):
            keys.append(key_of(each.id))
        elif isinstance(each, str):
            keys.append(key_of(each))
        else:
            raise TypeError(_expected(each))
    if len(keys) > MAX_EXCLUDED:
        raise ValueError(f"exclude has {len(keys)} members; at most {MAX_EXCLUDED} are possible")
    return exclude, keys


def _expected(exclude: object) -> str:
    name = type(exclude).__name__
    return f"exclude takes a WebSocket, the id of one, or several of them, not {name}"
