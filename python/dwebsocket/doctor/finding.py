"""One thing that the doctor has to say."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Level(str, Enum):
    """How bad a finding is."""

    #: As it should be, or just so that one knows.
    FINE = "fine"
    #: It works, but not always or not for long.
    WARNING = "warning"
    #: It cannot work.
    ERROR = "error"


@dataclass(frozen=True)
class Finding:
    """
    What was found, and what to do about it.

    Attributes:
        id: A short name that does not change between versions.
        level: How bad it is.
        what: What was seen, in one or two sentences.
        fix: What to change. Empty when there is nothing to.
    """

    id: str
    level: Level
    what: str
    fix: str = ""


def fine(name: str, what: str) -> Finding:
    """Gives a finding that is as it should be."""
    return Finding(name, Level.FINE, what)


def warning(name: str, what: str, fix: str) -> Finding:
    """Gives a finding that works, but not always."""
    return Finding(name, Level.WARNING, what, fix)


def error(name: str, what: str, fix: str) -> Finding:
    """Gives a finding that cannot work."""
    return Finding(name, Level.ERROR, what, fix)
