"""
The checks of ``manage.py websocket_doctor``: problems around WebSockets, and their fixes.

:mod:`local` checks the settings and the servers that run on this machine, :mod:`live` sends
handshakes to a running site, :mod:`proxy_configs` writes the configuration of the proxy in front.
:mod:`local` and :mod:`live` give :class:`Finding` objects; nothing here changes anything.
:mod:`site_report` is the answer of the site to :mod:`live`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from dwebsocket.telemetry.records import printable

# Longer texts, such as a foreign server may send, are cut.
_MAX_CHARACTERS = 2000


class Level(str, Enum):
    """The severity of a finding."""

    #: Correct, or merely information.
    FINE = "fine"
    #: It works, but not always or not for long.
    WARNING = "warning"
    #: It cannot work.
    ERROR = "error"


@dataclass(frozen=True)
class Finding:
    """
    One result of a check, and its fix.

    Some of its text may come from a foreign server: control characters and line breaks in it are
    escaped.

    Attributes:
        id: A short name that does not change between versions.
        level: Its severity.
        what: The observation, in one or two sentences.
        fix: The change to make. Empty when there is nothing to change.
    """

    id: str
    level: Level
    what: str
    fix: str = ""

    def __post_init__(self) -> None:
        for name in ("what", "fix"):
            text = getattr(self, name)
            short = text if len(text) <= _MAX_CHARACTERS else f"{text[:_MAX_CHARACTERS]}…"
            object.__setattr__(self, name, printable(short))


def fine(name: str, what: str) -> Finding:
    """Returns a finding that is as it should be."""
    return Finding(name, Level.FINE, what)


def warning(name: str, what: str, fix: str) -> Finding:
    """Returns a finding that works, but not always."""
    return Finding(name, Level.WARNING, what, fix)


def error(name: str, what: str, fix: str) -> Finding:
    """Returns a finding that cannot work."""
    return Finding(name, Level.ERROR, what, fix)
