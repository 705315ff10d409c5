"""An extension of griffe, which reads the docstrings: roles of Sphinx become plain code."""

from __future__ import annotations

import re
from typing import Any

from griffe import Extension, Object

_ROLE = re.compile(r":(?:attr|class|exc|func|meth|mod):`([^`]+)`")


class PlainRoles(Extension):
    """``:func:`dwebsocket.group``` is shown as the name alone."""

    def on_object(self, *, obj: Object, **kwargs: Any) -> None:
        """Rewrites the docstring of each object, before its sections are read."""
        if obj.docstring is not None:
            obj.docstring.value = _ROLE.sub(r"`\1`", obj.docstring.value)
