"""``CONFIG`` of our channel layer in ``CHANNEL_LAYERS``."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from typing import Any

from dwebsocket.conf.values import Read, boolean, mapping, number, or_none, text, whole

#: What ``BACKEND`` is for our layer.
BACKENDS = ("dwebsocket.channels.ChannelLayer", "dwebsocket.channels.layer.ChannelLayer")

#: What it is for the one of Channels, whose messages do not leave their process.
IN_MEMORY = "channels.layers.InMemoryChannelLayer"

# Keys of channels_redis that belong elsewhere, or have no counterpart.
_ELSEWHERE = {
    "hosts": "Write the address as LOCATION in WEBSOCKET_GROUPS.",
    "prefix": "Write it as PREFIX in WEBSOCKET_GROUPS.",
    "symmetric_encryption_keys": "Remove it: messages are signed with a key from SECRET_KEY. "
    "For encryption use TLS: rediss:// in LOCATION of WEBSOCKET_GROUPS.",
}


#: A mistake in ``CONFIG``: its place, as subscripts such as ``['expiry']``, what it is, and what to
#: write instead, which may be empty.
Problem = tuple[str, str, str]
# The function that reads a value, and the advice for a wrong one.
_Rule = tuple[Read, str]

_SECONDS = (number(lambda value: 0 < value < 1e300, "a number of seconds above 0"), "")
_CAPACITY = (whole(1, 2**62, "a number of messages, 1 or more"), "")
_RULES: dict[str, _Rule] = {
    "using": (text, "Write an alias of WEBSOCKET_GROUPS."),
    "bridge": (boolean, ""),
    "expiry": _SECONDS,
    "group_expiry": _SECONDS,
    "capacity": _CAPACITY,
    "channel_capacity": (
        or_none(mapping, "a dict of capacities"),
        'Write {"pattern*": 1000}.',
    ),
}


def problems(config: object) -> Iterator[Problem]:
    """Returns what is wrong with the keys and values of ``CONFIG``. Knows no aliases of groups."""
    if not isinstance(config, Mapping):
        yield "", f"must be a dict, not {config!r}", ""
        return
    for key, value in config.items():
        where = f"[{key!r}]"
        if key not in _RULES:
            yield where, "is an unknown key", _meant(str(key))
            continue
        yield from _broken(where, value, _RULES[key])
        if key == "channel_capacity" and isinstance(value, Mapping):
            for pattern, capacity in value.items():
                if isinstance(pattern, (str, re.Pattern)):
                    yield from _broken(f"{where}[{pattern!r}]", capacity, _CAPACITY)
                else:
                    what = f"has the key {pattern!r}, which is no pattern"
                    yield where, what, "Write a str, or what re.compile() gives."


def _broken(where: str, value: Any, rule: _Rule) -> Iterator[Problem]:
    read, hint = rule
    try:
        read(value)
    except ValueError as error:
        yield where, str(error), hint


def _meant(key: str) -> str:
    if (hint := _ELSEWHERE.get(key.lower())) is not None:
        return hint
    if close := difflib.get_close_matches(key.lower(), _RULES, n=1):
        return f"Did you mean {close[0]}?"
    return f"Known are {', '.join(_RULES)}."
