"""The names of rooms, in the syntax of ``path()``."""

from __future__ import annotations

import re
from typing import Any

from django.urls.resolvers import RoutePattern

from dwebsocket.groups import names

_PART = re.compile(r"<(?:[^>:]+:)?([^>]+)>")


class Pattern:
    """The names of one class of rooms."""

    def __init__(self, name: str) -> None:
        """
        Reads a pattern such as ``room-<int:pk>``.

        Raises:
            ImproperlyConfigured: It is none.
        """
        self._route = RoutePattern(name, is_endpoint=True)
        # The text between the arguments, and their names.
        self._parts = _PART.split(name)

    def match(self, name: str) -> dict[str, Any] | None:
        """
        Returns the arguments in a name; None for a name that does not fit.

        Nor does one that the arguments do not give back: each room has one name.
        """
        try:
            # As the name of a group, which it is by default.
            names.checked(name)
            found = self._route.match(name)
        except ValueError:
            return None
        if found is None or found[0]:
            return None
        kwargs: dict[str, Any] = found[2]
        return kwargs if self._filled(kwargs) == name else None

    def _filled(self, kwargs: dict[str, Any]) -> str | None:
        converters = self._route.converters
        try:
            parts = [
                converters[part].to_url(kwargs[part]) if number % 2 else part
                for number, part in enumerate(self._parts)
            ]
        except ValueError:
            return None
        return "".join(map(str, parts))
