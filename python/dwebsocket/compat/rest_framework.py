"""Undocumented parts of Django REST framework: Django's request inside of its own."""

from __future__ import annotations

from typing import Any


def wrapped_request(request: object) -> Any:
    """
    Returns the request that ``request`` wraps, or None.

    ``rest_framework.request.Request._request``, since 2.0; other frameworks do the same.
    Where it is missing the request is taken as it is.
    """
    return getattr(request, "_request", None)
