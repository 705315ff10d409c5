"""Django's request, also where a framework passes a request class of its own to views."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest

from dwebsocket.compat.rest_framework import wrapped_request


def http_request(request: Any) -> Any:
    """
    Gives Django's request behind one that wraps it, as that of Django REST framework does.

    Such requests keep Django's as ``_request``, and read missing attributes from it. Any other
    object is returned as it is.
    """
    while not isinstance(request, HttpRequest):
        inner = wrapped_request(request)
        if inner is None:
            break
        request = inner
    return request
