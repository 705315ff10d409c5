"""``WEBSOCKET_GROUPS``: the backends of groups, shaped like Django's ``CACHES``."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, TypeVar

from dwebsocket.conf.values import Read, expected, fields, mapping, number, text, under, whole

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
        backends[alias] = BackendSettings(**under(alias, fields, entry, _READERS))
    backends.setdefault(DEFAULT, BackendSettings())
    return backends


def _path(value: object) -> str:
    path = text(value)
    if not path or not all(part.isidentifier() for part in path.split(".")):
        raise expected("a dotted path", path)
    return path


def _location(value: Any) -> tuple[str, ...]:
    if value is None:
        return ()
    found = [value] if isinstance(value, str) else value
    is_list = isinstance(found, Collection) and not isinstance(found, (bytes, Mapping))
    if not is_list or not all(isinstance(address, str) for address in found):
        raise expected("a str or a list of them", value)
    return tuple(found)


def _policy(value: object) -> object:
    if value not in _POLICIES:
        raise expected(f"one of {', '.join(_POLICIES)}", value)
    return value


def _folder(value: object) -> str:
    if value is None or value == "":
        return ""
    if not isinstance(value, (str, os.PathLike)) or not os.path.isabs(value):
        # Processes with other working folders would not meet.
        raise expected("the absolute path of a folder", value)
    return os.fsdecode(value)


def _patterns(kind: Callable[..., Any], readers: Mapping[str, Read]) -> Read:
    """Returns what reads a dict of patterns, each with a dict of what ``readers`` read."""
    what = f"a dict with {' and '.join(readers)}"

    def read(value: object) -> tuple[Any, ...]:
        found = []
        entries = mapping({} if value is None else value, "a dict of patterns")
        for pattern, limits in entries.items():
            if not isinstance(pattern, str) or not pattern:
                raise ValueError(f"has the pattern {pattern!r}: it must be a str")
            found.append(kind(pattern, **under(pattern, fields, limits, readers, what)))
        return tuple(found)

    return read


# The keys of a backend, which are the fields of BackendSettings.
_READERS: dict[str, Read] = {
    "BACKEND": _path,
    "LOCATION": _location,
    "PREFIX": text,
    "TIMEOUT": number(lambda value: 0 < value <= _LONGEST_TIMEOUT_S, "a number of seconds"),
    "SLOW": _policy,
    "HISTORY": _patterns(
        HistoryLimits,
        {
            "size": whole(1, _MOST_MESSAGES, "a number of messages"),
            "seconds": number(lambda value: 0 < value <= _LONGEST_HISTORY_S, "a number of seconds"),
        },
    ),
    "PRESENCE": _patterns(
        PresenceLimits,
        {
            "grace": number(
                lambda value: 0 <= value <= _LONGEST_GRACE_S, "a number of seconds, at most a day"
            )
        },
    ),
    "OPTIONS": lambda value: dict(mapping(value)),
    "DATABASE": text,
    "RUNTIME_DIR": _folder,
}
