"""``WEBSOCKET_GROUPS``: the backends of groups, shaped like Django's ``CACHES``."""

from __future__ import annotations

import difflib
import functools
import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, TypeVar

#: The alias of the backend that is used when none is named.
DEFAULT = "default"

# Short names of the backends of this package.
_OWN = "dwebsocket.groups."
_POLICIES = ("close", "drop_newest", "drop_oldest", "latest")
_LONGEST_TIMEOUT_S = 3600.0
_MOST_MESSAGES = 10**9
_LONGEST_HISTORY_S = 365 * 24 * 3600.0
# The beginning of the names of groups that are this package's own.
_OF_PACKAGE = "dwebsocket."
# The longest time for which a user without connections stays present.
_LONGEST_GRACE_S = 24 * 3600.0
# Names whose entries of HISTORY and PRESENCE are remembered.
_NAMES = 1024


@dataclass(frozen=True)
class HistoryLimits:
    """
    How much of a group's history is kept: an entry of ``HISTORY``.

    Attributes:
        pattern: The names of the groups, as :mod:`fnmatch` has them.
        size: Messages.
        seconds: Their age.
    """

    pattern: str
    size: int = 100
    seconds: float = 300.0

    @property
    def limits(self) -> tuple[int, float]:
        """Both, for the engine."""
        return self.size, self.seconds


@dataclass(frozen=True)
class PresenceLimits:
    """
    Groups that know which users are in them: an entry of ``PRESENCE``.

    Attributes:
        pattern: The names of the groups, as :mod:`fnmatch` has them.
        grace: The seconds for which a user without connections stays.
    """

    pattern: str
    grace: float = 10.0


EntryT = TypeVar("EntryT", HistoryLimits, PresenceLimits)
# Reads a value that stands at a place, which the text of a ValueError names.
_Read = Callable[[str, object], Any]


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
        history: The groups that have a history, the first that fits counts.
        presence: The groups that know which users are in them, likewise.
        options: Further options of the backend, such as certificates.
        database: The alias of the database that the postgres backend uses.
        runtime_dir: The folder of the local backend's sockets.
    """

    backend: str = f"{_OWN}local"
    location: tuple[str, ...] = ()
    prefix: str = ""
    timeout: float = 2.0
    slow: str = "close"
    history: tuple[HistoryLimits, ...] = ()
    presence: tuple[PresenceLimits, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict, hash=False)
    database: str = "default"
    runtime_dir: str = ""

    def kept(self, name: str) -> HistoryLimits | None:
        """Returns how much of a group is kept; None for one without a history."""
        return _find(self.history, name) if self.history and _is_projects(name) else None

    def present(self, name: str) -> PresenceLimits | None:
        """Returns how a group knows its users; None for one without presence."""
        return _find(self.presence, name) if self.presence and _is_projects(name) else None


def _is_projects(name: str) -> bool:
    # Groups of this package fit a pattern such as `*`, too.
    return not name.startswith(_OF_PACKAGE)


@functools.lru_cache(_NAMES)
def _find(entries: tuple[EntryT, ...], name: str) -> EntryT | None:
    return next((entry for entry in entries if fnmatchcase(name, entry.pattern)), None)


def read(value: object) -> dict[str, BackendSettings]:
    """
    Returns the backends by their aliases.

    Raises:
        ValueError: An entry that is not valid; the message names it.
    """
    if not isinstance(value, Mapping):
        raise ValueError(f"must be a dict of backends, shaped like CACHES, not {value!r}")
    backends = {}
    for alias, entry in value.items():
        if not isinstance(alias, str) or not alias:
            raise ValueError(f"has the alias {alias!r}: it must be a str")
        backends[alias] = BackendSettings(**_fields(f"[{alias!r}]", entry, _READERS))
    backends.setdefault(DEFAULT, BackendSettings())
    return backends


def _fields(
    where: str, value: object, readers: Mapping[str, _Read], what: str = "a dict"
) -> dict[str, Any]:
    """Returns what ``readers`` make of a dict, by its keys in lower case."""
    found = {}
    for key, each in _dict(where, value, what).items():
        if key not in readers:
            close = difflib.get_close_matches(str(key), readers, n=1)
            hint = f"did you mean {close[0]}?" if close else f"known are {', '.join(readers)}"
            raise ValueError(f"{where} has the unknown key {key!r}: {hint}")
        found[key.lower()] = readers[key](f"{where}[{key!r}]", each)
    return found


def _dict(where: str, value: object, what: str = "a dict") -> Mapping[Any, Any]:
    if not isinstance(value, Mapping):
        raise ValueError(f"{where} must be {what}, not {value!r}")
    return value


def _text(where: str, value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{where} must be a str, not {value!r}")
    return value


def _path(where: str, value: object) -> str:
    path = _text(where, value)
    if not path or not all(part.isidentifier() for part in path.split(".")):
        raise ValueError(f"{where} must be a dotted path, not {path!r}")
    return path


def _location(where: str, value: Any) -> tuple[str, ...]:
    if value is None:
        return ()
    found = [value] if isinstance(value, str) else value
    is_list = isinstance(found, Collection) and not isinstance(found, (bytes, Mapping))
    if not is_list or not all(isinstance(address, str) for address in found):
        raise ValueError(f"{where} must be a str or a list of them, not {value!r}")
    return tuple(found)


def _policy(where: str, value: object) -> object:
    if value not in _POLICIES:
        raise ValueError(f"{where} must be one of {', '.join(_POLICIES)}, not {value!r}")
    return value


def _folder(where: str, value: object) -> str:
    if value is None or value == "":
        return ""
    if not isinstance(value, (str, os.PathLike)) or not os.path.isabs(value):
        # Processes with other working folders would not meet.
        raise ValueError(f"{where} must be the absolute path of a folder, not {value!r}")
    return os.fsdecode(value)


def _patterns(kind: Callable[..., Any], readers: Mapping[str, _Read]) -> _Read:
    """Returns what reads a dict of patterns, each with a dict of what ``readers`` read."""
    what = f"a dict with {' and '.join(readers)}"

    def read(where: str, value: object) -> tuple[Any, ...]:
        found = []
        entries = _dict(where, {} if value is None else value, "a dict of patterns")
        for pattern, limits in entries.items():
            if not isinstance(pattern, str) or not pattern:
                raise ValueError(f"{where} has the pattern {pattern!r}: it must be a str")
            found.append(kind(pattern, **_fields(f"{where}[{pattern!r}]", limits, readers, what)))
        return tuple(found)

    return read


def _messages(where: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value <= _MOST_MESSAGES:
        raise ValueError(f"{where} must be a number of messages, not {value!r}")
    return value


def _seconds(is_valid: Callable[[float], bool], what: str = "a number of seconds") -> _Read:
    """Returns what reads seconds for which ``is_valid``."""

    def read(where: str, value: object) -> float:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not is_valid(value):
            raise ValueError(f"{where} must be {what}, not {value!r}")
        return float(value)

    return read


# The keys of a backend, which are the fields of BackendSettings.
_READERS: dict[str, _Read] = {
    "BACKEND": _path,
    "LOCATION": _location,
    "PREFIX": _text,
    "TIMEOUT": _seconds(lambda value: 0 < value <= _LONGEST_TIMEOUT_S),
    "SLOW": _policy,
    "HISTORY": _patterns(
        HistoryLimits,
        {"size": _messages, "seconds": _seconds(lambda value: 0 < value <= _LONGEST_HISTORY_S)},
    ),
    "PRESENCE": _patterns(
        PresenceLimits,
        {
            "grace": _seconds(
                lambda value: 0 <= value <= _LONGEST_GRACE_S, "a number of seconds, at most a day"
            )
        },
    ),
    "OPTIONS": lambda *given: dict(_dict(*given)),
    "DATABASE": _text,
    "RUNTIME_DIR": _folder,
}
