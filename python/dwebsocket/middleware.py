"""The middleware that gives every request `is_websocket()` and `websocket`."""

from __future__ import annotations

import functools
import logging
from typing import TYPE_CHECKING, Any

from asgiref.sync import async_to_sync, iscoroutinefunction, markcoroutinefunction
from django.conf import settings
from django.core.exceptions import MiddlewareNotUsed
from django.utils.module_loading import import_string

from dwebsocket import conf
from dwebsocket.compat.django_views import class_based
from dwebsocket.conf import checks
from dwebsocket.handshake import preloading
from dwebsocket.handshake.refusal import refuse
from dwebsocket.handshake.upgrade import UpgradeRequest, is_ours, upgrade
from dwebsocket.handshake.upgrade_request import has_websocket, make, prepare
from dwebsocket.runners.view import Detached

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from django.http import HttpRequest
    from django.http.response import HttpResponseBase

__all__ = ["WebSocketMiddleware"]

logger = logging.getLogger(__name__)

checks.register()


def __getattr__(name: str) -> Any:
    # Constants in the original; read from the settings here each time.
    if name == "WEBSOCKET_ACCEPT_ALL":
        return conf.get("ACCEPT_ALL")
    if name == "WEBSOCKET_FACTORY_CLASS":
        return conf.get("FACTORY_CLASS") or "dwebsocket.backends.default.factory.WebSocketFactory"
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


class WebSocketMiddleware:
    """
    Prepares every request, and serves WebSockets to views without a decorator.

    Such views are those that carry ``accept_websocket = True`` or ``require_websocket = True``,
    and all views under ``WEBSOCKET_ACCEPT_ALL``. A WebSocket for any other view gets 400.

    It belongs at the end of ``MIDDLEWARE``: a view without a decorator is detached from the server
    in ``process_view`` here, and Django then skips ``process_view`` of the middleware below. It is
    called here before that, on further objects of these classes.

    Projects may subclass it, also together with Django's ``MiddlewareMixin``, and may call its
    methods on the class.
    """

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Callable[[HttpRequest], Any] | None = None) -> None:
        """Django passes ``get_response``; ``MiddlewareMixin`` stores it and passes None on."""
        if get_response is not None:
            self.get_response = get_response
            self._is_async = iscoroutinefunction(get_response)
            if self._is_async:
                markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> Any:
        """Django's call for each request: a response, or a coroutine for one."""
        if self._is_async:
            return self._acall(request)
        response = self.process_request(request) or self.get_response(request)
        return self.process_response(request, response)

    async def _acall(self, request: HttpRequest) -> HttpResponseBase:
        response = self.process_request(request) or await self.get_response(request)
        return self.process_response(request, response)

    @classmethod
    def process_request(cls, request: HttpRequest) -> HttpResponseBase | None:
        """
        Sets a request's attributes; a handshake gets a WebSocket that is yet to be opened.

        Returns:
            A refusal when the project's factory makes no WebSocket; None otherwise.
        """
        if (factory := prepare(request)) is not None:
            if isinstance(made := make(request, factory), str):
                return refuse(request, 400, made, cause="factory")
            request.__dict__["websocket"] = made
        return None

    @classmethod
    def process_view(
        cls,
        request: HttpRequest,
        view_func: Callable[..., Any],
        view_args: tuple[Any, ...],
        view_kwargs: Mapping[str, Any],
    ) -> HttpResponseBase | None:
        """Django's call before the view: answers for views without a decorator."""
        view: Any = view_func
        while isinstance(view, functools.partial):
            view = view.func
        if _handles_websocket(view) or has_websocket(request):
            return None
        required = getattr(view, "require_websocket", False)
        takes = required or getattr(view, "accept_websocket", False) or conf.get("ACCEPT_ALL")
        if not takes:
            if prepare(request) is None:
                return None
            return refuse(request, 400, "This address takes no WebSockets.")
        asked = UpgradeRequest(request, Detached(view_func), view_args, view_kwargs, {})
        if is_ours(asked):
            # A class is hashable, whatever mypy says.
            for guard in _guards_below(cls, tuple(settings.MIDDLEWARE)):  # type: ignore[arg-type]
                if (response := guard(request, view_func, view_args, view_kwargs)) is not None:
                    return response
            if (response := upgrade(asked)) is not None:
                return response
        return refuse(request, 400, "This address is for WebSockets only.") if required else None

    @classmethod
    def process_response(cls, request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
        """Returns ``response``, and does not close the WebSocket: that stays open for its view."""
        return response

    @classmethod
    def process_exception(cls, request: HttpRequest, exception: Exception) -> None:
        """Leaves ``exception`` to Django, as :meth:`process_response` leaves responses."""


@functools.lru_cache
def _guards_below(
    cls: type[WebSocketMiddleware], names: tuple[str, ...]
) -> list[Callable[..., HttpResponseBase | None]]:
    """
    Returns the ``process_view`` of each middleware below, which Django skips when ours answers.
    """
    classes = [import_string(name) for name in names]
    found = []
    for below in classes[classes.index(cls) + 1 :] if cls in classes else []:
        try:
            # Django's own object is out of reach.
            guard = getattr(below(_unused), "process_view", None)
        except MiddlewareNotUsed:
            continue
        if guard is not None:
            found.append(async_to_sync(guard) if iscoroutinefunction(guard) else guard)
    return found


def _unused(request: HttpRequest) -> HttpResponseBase:
    raise RuntimeError("the middleware below are asked by process_view alone")


def _handles_websocket(view: Callable[..., Any]) -> bool:
    """Whether a decorator handles WebSockets of the view function, or of its class's ``get``."""
    if getattr(view, "handles_websocket", False):
        return True
    cls = class_based(view)
    # A handshake is a GET. View sets of Django REST framework map methods to names in `actions`.
    name = (getattr(view, "actions", None) or {}).get("get", "get")
    # Behind the `dispatch` of a mixin, such as `LoginRequiredMixin`, there may be a decorated one.
    dispatches = [vars(each).get("dispatch") for each in getattr(cls, "__mro__", ())]
    methods = [getattr(cls, name, None), *dispatches]
    return any(getattr(method, "handles_websocket", False) for method in methods)


preloading.begin()
