"""The error about a part that the installed version of a library does not have."""

from __future__ import annotations

import platform

from django.core.exceptions import ImproperlyConfigured


class MissingPart(ImproperlyConfigured):
    """A library has changed a part that dwebsocket needs. The message names both."""

    def __init__(self, library: str, part: str) -> None:
        super().__init__(
            f"dwebsocket needs {part}, which {library} {version_of(library)} does not have: use a "
            f"version of {library} that the page Versions of dwebsocket's documentation names"
        )


def version_of(library: str) -> str:
    """Returns the installed version of a library, ``"Python"`` among them."""
    if library == "Python":
        return platform.python_version()
    from importlib import metadata  # slow to import, and only errors need it

    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return "(unknown version)"


def need(library: str, owner: type, *names: str) -> None:
    """
    Checks that ``owner``, a class of ``library``, has the attributes ``names``.

    Raises:
        MissingPart: One is missing.
    """
    for name in names:
        if not hasattr(owner, name):
            raise MissingPart(library, f"{owner.__module__}.{owner.__qualname__}.{name}")
