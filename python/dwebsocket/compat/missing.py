"""The error about a part that a library has no more, or not yet."""

from __future__ import annotations

import platform

from django.core.exceptions import ImproperlyConfigured


class MissingPart(ImproperlyConfigured):
    """A library has changed a part that dwebsocket cannot do without. The message names both."""

    def __init__(self, library: str, part: str) -> None:
        super().__init__(
            f"dwebsocket needs {part}, which {library} {version_of(library)} does not have: use a "
            f"version of {library} that the README of dwebsocket names"
        )


def version_of(library: str) -> str:
    """Gives the installed version of a library, ``"Python"`` among them."""
    if library == "Python":
        return platform.python_version()
    from importlib import metadata  # slow to import, and only errors need it

    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return "(unknown version)"


def need(library: str, owner: type, *names: str) -> None:
    """
    Sees whether ``owner``, a class of ``library``, has attributes.

    Raises:
        MissingPart: One is missing.
    """
    for name in names:
        if not hasattr(owner, name):
            raise MissingPart(library, f"{owner.__module__}.{owner.__qualname__}.{name}")
