"""
The page about WebSockets in Django's admin, at ``websockets/`` below it.

With ``"dwebsocket"`` in ``INSTALLED_APPS`` it is in the default admin site. :func:`register` adds
it to another one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.contrib import admin

from dwebsocket.models import OpenWebSocket
from dwebsocket.operations.admin_page import page

if TYPE_CHECKING:
    from django.contrib.admin import AdminSite
    from django.http import HttpRequest
    from django.urls import URLPattern, URLResolver

    _Admin = admin.ModelAdmin[OpenWebSocket]
else:
    _Admin = admin.ModelAdmin

__all__ = ["OpenWebSocketAdmin", "register"]


class OpenWebSocketAdmin(_Admin):
    """Stands for the page in the admin's index. Has no pages of its own."""

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Whether the user may see the page."""
        return page.may_view(self.admin_site, request)

    def has_module_permission(self, request: HttpRequest) -> bool:
        """Whether the index shows it."""
        return self.has_view_permission(request)

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """No: nothing is stored. Clients open WebSockets, and the page closes them by itself."""
        return False

    has_change_permission = has_delete_permission = has_add_permission

    def get_urls(self) -> list[URLPattern]:
        """Returns none: the page has its own."""
        return []


def register(site: AdminSite) -> None:
    """
    Adds the page to an admin site, before its ``urls`` are used.

    Args:
        site: Such as one of the project's own; the default one has the page already.
    """
    site.register(OpenWebSocket, OpenWebSocketAdmin)
    own = site.get_urls

    def get_urls() -> list[URLResolver | URLPattern]:
        # The page's come first: the site ends with a pattern that takes everything.
        return [*(page.urls(site) if site.is_registered(OpenWebSocket) else ()), *own()]

    # The documented hook for views of one's own, on this site only.
    site.get_urls = get_urls  # type: ignore[method-assign]


register(admin.site)
