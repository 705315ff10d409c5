"""The middleware that gives every request `is_websocket()` and `websocket`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from asgiref.sync import iscoroutinefunction, markcoroutinefunction

from dwebsocket import checks, conf, upgrade
from dwebsocket.runners.view import Detached

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.http import HttpRequest
    from django.http.response import HttpResponseBase

__all__ = ["WebSocketMiddleware"]

checks.register()


class WebSocketMiddleware:
    """
    Prepares every request, and serves WebSockets to views without a decorator.

    Such views are those that carry ``accept_websocket = True`` or ``require_websocket = True``,
    and all views under ``WEBSOCKET_ACCEPT_ALL``. A WebSocket for any other view gets 400.

    It belongs at the end of ``MIDDLEWARE``: a view without a decorator is taken out of the
    server's hands here, and middleware below would not be asked about it.
    """

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        self.get_response = get_response
        if iscoroutinefunction(get_response):
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> Any:
        """Django's call for each request: a response, or a coroutine for one."""
        upgrade.prepare(request)
        return self.get_response(request)

    def process_view(
        self,
        request: HttpRequest,
        view: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> HttpResponseBase | None:
        """Django's call before the view."""
        if _handles_websocket(view):
            return None
        required = getattr(view, "require_websocket", False)
        factory = upgrade.prepare(request)
        if factory is None:
            if required:
                return upgrade.refuse(request, 400, "This address is for WebSockets only.")
            return None
        if required or getattr(view, "accept_websocket", False) or conf.get("ACCEPT_ALL"):
            return upgrade.upgrade(request, factory, Detached(view), args, kwargs, {})
        return upgrade.refuse(request, 400, "This address takes no WebSockets.")


def _handles_websocket(view: Callable[..., Any]) -> bool:
    """Whether a decorator sees to the view's WebSockets: on itself, or on its class's handler."""
    if getattr(view, "handles_websocket", False):
        return True
    # Django's name for the class of a view, and that of Django REST framework.
    cls = getattr(view, "view_class", None) or getattr(view, "cls", None)
    # A handshake is a GET; the framework's view sets name their handlers themselves.
    name = (getattr(view, "actions", None) or {}).get("get", "get")
    return bool(getattr(getattr(cls, name, None), "handles_websocket", False))
