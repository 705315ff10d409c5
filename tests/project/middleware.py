"""Middleware whose marks the tests look for in the real 101."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.middleware.csrf import CsrfViewMiddleware
from django.utils.decorators import async_only_middleware

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

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


class OwnCsrfViewMiddleware(CsrfViewMiddleware):
    """Django's, as projects adapt it."""


@async_only_middleware
def only_async(get_response: Callable[[HttpRequest], Awaitable[HttpResponse]]) -> Callable:
    """Add nothing, but run in an event loop."""

    async def middleware(request: HttpRequest) -> HttpResponse:
        return await get_response(request)

    return middleware
