"""Reading values of settings: in the form in which they are used, or a ``ValueError`` says why."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

T = TypeVar("T")
Read = Callable[[Any], Any]


def expected(what: str, value: object) -> ValueError:
    """Returns the error for a value, by what it has to be."""
    return ValueError(f"must be {what}, not {value!r}")


def boolean(value: object) -> bool:
    """Reads a bool."""
    if not isinstance(value, bool):
        raise expected("True or False", value)
    return value


def text(value: object) -> str:
    """Reads a text."""
    if not isinstance(value, str):
        raise expected("a str", value)
    return value


def whole(least: int, most: int, what: str) -> Callable[[object], int]:
    """Returns what reads a whole number from ``least`` to ``most``."""

    def read(value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise expected(what, value)
        return value

    return read


def number(is_valid: Callable[[float], bool], what: str) -> Callable[[object], float]:
    """Returns what reads a number for which ``is_valid``."""

    def read(value: object) -> float:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not is_valid(value):
            raise expected(what, value)
        return float(value)

    return read


def or_none(read: Callable[[object], T], what: str) -> Callable[[object], T | None]:
    """Returns what reads None, too; ``what`` is valid then."""

    def read_or_none(value: object) -> T | None:
        if value is None:
            return None
        try:
            return read(value)
        except ValueError:
            raise expected(what, value) from None

    return read_or_none


def mapping(value: object, what: str = "a dict") -> Mapping[Any, Any]:
    """Reads a dict, or another mapping."""
    if not isinstance(value, Mapping):
        raise expected(what, value)
    return value


def fields(value: object, readers: Mapping[str, Read], what: str = "a dict") -> dict[str, Any]:
    """Returns what ``readers`` read of a dict, by its keys in lower case."""
    found = {}
    for key, each in mapping(value, what).items():
        if key not in readers:
            close = difflib.get_close_matches(str(key), readers, n=1)
            hint = f"did you mean {close[0]}?" if close else f"known are {', '.join(readers)}"
            raise ValueError(f"has the unknown key {key!r}: {hint}")
        found[key.lower()] = under(key, readers[key], each)
    return found


def under(key: str, read: Callable[..., T], value: object, *args: Any) -> T:
    """Returns what is read of the value of a key, which an error names."""
    try:
        return read(value, *args)
    except ValueError as error:
        said = str(error)
        raise ValueError(f"[{key!r}]{'' if said.startswith('[') else ' '}{said}") from None
