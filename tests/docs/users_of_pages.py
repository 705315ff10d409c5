"""Users of the sites that are made of a page: by a header, without a database."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from django.contrib.auth.models import AnonymousUser

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.http import HttpRequest, HttpResponseBase


class User(SimpleNamespace):
    """A signed-in user: primary key and name are the header's value."""

    is_authenticated = True

    def get_username(self) -> str:
        """Give the name."""
        return str(self.username)

    def has_perm(self, permission: str) -> bool:
        """Whether the name says so."""
        return self.username == "bidder" and permission == "auctions.bid"


def signed_in(
    get_response: Callable[[HttpRequest], HttpResponseBase],
) -> Callable[[HttpRequest], HttpResponseBase]:
    """Middleware: `X-User: anna` is a user, none is anonymous."""

    def middleware(request: Any) -> HttpResponseBase:
        name = request.headers.get("X-User")
        request.user = User(pk=name, username=name) if name else AnonymousUser()
        return get_response(request)

    return middleware
