"""``CONFIG`` of our channel layer in ``CHANNEL_LAYERS``."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

#: What ``BACKEND`` is for our layer.
BACKENDS = ("dwebsocket.channels.ChannelLayer", "dwebsocket.channels.layer.ChannelLayer")

#: What it is for the one of Channels, whose messages do not leave their process.
IN_MEMORY = "channels.layers.InMemoryChannelLayer"

_KEYS = ("using", "bridge", "expiry", "group_expiry", "capacity", "channel_capacity")
# Keys of channels_redis that belong elsewhere, or have no counterpart.
_ELSEWHERE = {
    "hosts": "Write the address as LOCATION in WEBSOCKET_GROUPS.",
    "prefix": "Write it as PREFIX in WEBSOCKET_GROUPS.",
    "symmetric_encryption_keys": "Remove it: messages are signed with a key from SECRET_KEY. "
    "For encryption use TLS: rediss:// in LOCATION of WEBSOCKET_GROUPS.",
}


@dataclass(frozen=True)
class Problem:
    """
    A mistake in ``CONFIG``.

    Attributes:
        where: The place in it, as subscripts: ``['expiry']``.
        what: The mistake.
        hint: What to write instead; may be empty.
    """

    where: str
    what: str
    hint: str = ""


def problems(config: object) -> Iterator[Problem]:
    """Returns what is wrong with the keys and values of ``CONFIG``. Knows no aliases of groups."""
    if not isinstance(config, Mapping):
        yield Problem("", f"must be a dict, not {config!r}")
        return
    for key, value in config.items():
        if key not in _KEYS:
            yield Problem(f"[{key!r}]", "is an unknown key", _meant(str(key)))
        else:
            yield from _wrong_value(key, value)


def _wrong_value(key: str, value: Any) -> Iterator[Problem]:
    where = f"[{key!r}]"
    if key == "using" and not isinstance(value, str):
        hint = "Write an alias of WEBSOCKET_GROUPS."
        yield Problem(where, f"must be a str, not {value!r}", hint)
    elif key == "bridge" and not isinstance(value, bool):
        yield Problem(where, f"must be True or False, not {value!r}")
    elif key in ("expiry", "group_expiry") and not _is_above_zero(value):
        yield Problem(where, f"must be a number of seconds above 0, not {value!r}")
    elif key == "capacity":
        yield from _wrong_capacity(where, value)
    elif key == "channel_capacity" and value is not None:
        yield from _wrong_capacities(where, value)


def _wrong_capacities(where: str, value: Any) -> Iterator[Problem]:
    if not isinstance(value, Mapping):
        hint = 'Write {"pattern*": 1000}.'
        yield Problem(where, f"must be a dict of capacities, not {value!r}", hint)
        return
    for pattern, capacity in value.items():
        if isinstance(pattern, (str, re.Pattern)):
            yield from _wrong_capacity(f"{where}[{pattern!r}]", capacity)
        else:
            what = f"has the key {pattern!r}, which is no pattern"
            yield Problem(where, what, "Write a str, or what re.compile() gives.")


def _wrong_capacity(where: str, value: Any) -> Iterator[Problem]:
    if not (isinstance(value, int) and _is_above_zero(value)):
        yield Problem(where, f"must be a number of messages, 1 or more, not {value!r}")


def _is_above_zero(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value > 0


def _meant(key: str) -> str:
    if (hint := _ELSEWHERE.get(key.lower())) is not None:
        return hint
    if close := difflib.get_close_matches(key.lower(), _KEYS, n=1):
        return f"Did you mean {close[0]}?"
    return f"Known are {', '.join(_KEYS)}."
