"""``WEBSOCKET_GROUPS``: the backends of groups, shaped like Django's ``CACHES``."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

#: The alias of the backend that is used when none is named.
DEFAULT = "default"

# Short names of the backends of this package.
_OWN = "dwebsocket.groups."
_POLICIES = ("close", "drop_newest", "drop_oldest", "latest")
_KEYS = (
    "BACKEND",
    "LOCATION",
    "PREFIX",
    "TIMEOUT",
    "SLOW",
    "HISTORY",
    "PRESENCE",
    "OPTIONS",
    "DATABASE",
    "RUNTIME_DIR",
)
_LONGEST_TIMEOUT_S = 3600.0


@dataclass(frozen=True)
class BackendSettings:
    """
    The settings of one backend.

    Attributes:
        backend: The dotted path of its module or class.
        location: Addresses of servers.
        prefix: Keeps projects apart that share a ``SECRET_KEY``.
        timeout: The seconds that publishing may take at most.
        slow: What happens to members that do not keep up.
        options: Further options of the backend, such as certificates.
        database: The alias of the database that the postgres backend uses.
        runtime_dir: The folder of the local backend's sockets.
    """

    backend: str = f"{_OWN}local"
    location: tuple[str, ...] = ()
    prefix: str = ""
    timeout: float = 2.0
    slow: str = "close"
    options: Mapping[str, Any] = field(default_factory=dict, hash=False)
    database: str = "default"
    runtime_dir: str = ""


def read(value: object) -> dict[str, BackendSettings]:
    """
    Gives the backends by their aliases.

    Raises:
        ValueError: An entry that is not valid; the message names it.
    """
    if not isinstance(value, Mapping):
        raise ValueError(f"must be a dict of backends, shaped like CACHES, not {value!r}")
    backends = {alias: _read_one(alias, entry) for alias, entry in value.items()}
    backends.setdefault(DEFAULT, BackendSettings())
    return backends


def _read_one(alias: object, entry: object) -> BackendSettings:
    if not isinstance(alias, str) or not alias:
        raise ValueError(f"has the alias {alias!r}: it must be a str")
    if not isinstance(entry, Mapping):
        raise ValueError(f"[{alias!r}] must be a dict, not {entry!r}")
    for key in entry:
        if key not in _KEYS:
            close = difflib.get_close_matches(str(key), _KEYS, n=1)
            hint = f"did you mean {close[0]}?" if close else f"known are {', '.join(_KEYS)}"
            raise ValueError(f"[{alias!r}] has the unknown key {key!r}: {hint}")
    default = BackendSettings()

    def text(key: str, fallback: str) -> str:
        value = entry.get(key, fallback)
        if not isinstance(value, str):
            raise ValueError(f"[{alias!r}][{key!r}] must be a str, not {value!r}")
        return value

    slow = entry.get("SLOW", default.slow)
    if slow not in _POLICIES:
        raise ValueError(f"[{alias!r}]['SLOW'] must be one of {', '.join(_POLICIES)}, not {slow!r}")
    options = entry.get("OPTIONS", {})
    if not isinstance(options, Mapping):
        raise ValueError(f"[{alias!r}]['OPTIONS'] must be a dict, not {options!r}")
    for key in ("HISTORY", "PRESENCE"):
        if entry.get(key):
            raise ValueError(f"[{alias!r}][{key!r}] is not supported yet")
    runtime_dir = entry.get("RUNTIME_DIR") or ""
    return BackendSettings(
        backend=_path(text("BACKEND", default.backend), alias),
        location=_location(alias, entry.get("LOCATION", ())),
        prefix=text("PREFIX", default.prefix),
        timeout=_timeout(alias, entry.get("TIMEOUT", default.timeout)),
        slow=slow,
        options=dict(options),
        database=text("DATABASE", default.database),
        runtime_dir=str(runtime_dir),
    )


def _path(path: str, alias: str) -> str:
    if not path or not all(part.isidentifier() for part in path.split(".")):
        raise ValueError(f"[{alias!r}]['BACKEND'] must be a dotted path, not {path!r}")
    return path


def _location(alias: str, value: object) -> tuple[str, ...]:
    if value is None:
        return ()
    addresses = [value] if isinstance(value, str) else value
    if not isinstance(addresses, Iterable) or isinstance(addresses, (bytes, Mapping)):
        raise ValueError(f"[{alias!r}]['LOCATION'] must be a str or a list of them, not {value!r}")
    found = tuple(addresses)
    if not all(isinstance(address, str) for address in found):
        raise ValueError(f"[{alias!r}]['LOCATION'] must be a str or a list of them, not {value!r}")
    return found


def _timeout(alias: str, value: object) -> float:
    if (
        isinstance(value, bool)
        or not isinstance(value, (int, float))
        or not 0 < value <= _LONGEST_TIMEOUT_S
    ):
        raise ValueError(f"[{alias!r}]['TIMEOUT'] must be a number of seconds, not {value!r}")
    return float(value)
