"""Middleware whose marks the tests look for in the real 101."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.http import HttpRequest, HttpResponse


def stamp(get_response: Callable[[HttpRequest], HttpResponse]) -> Callable:
    """Add a header and two cookies to every response, whatever kind it is."""

    def middleware(request: HttpRequest) -> HttpResponse:
        response = get_response(request)
        response["X-Stamp"] = "from middleware"
        response.set_cookie("stamp", "one")
        response.set_cookie("second", "two", httponly=True)
        return response

    return middleware
