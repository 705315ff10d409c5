"""`@accept_websocket`, `@require_websocket`, and `@websocket`, another name for the first."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar, overload

from django.conf import settings

from dwebsocket import checks, conf, inline, upgrade
from dwebsocket.runners.view import Detached

if TYPE_CHECKING:
    from django.http import HttpRequest, HttpResponse

    from dwebsocket.factory import WebSocketFactory

    WEBSOCKET_MIDDLEWARE_INSTALLED: bool

ViewT = TypeVar("ViewT", bound=Callable[..., Any])

__all__ = ["accept_websocket", "require_websocket", "websocket"]

checks.register()


def __getattr__(name: str) -> Any:
    # As the original has it, but found out when it is asked for.
    if name == "WEBSOCKET_MIDDLEWARE_INSTALLED":
        return "dwebsocket.middleware.WebSocketMiddleware" in settings.MIDDLEWARE
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


@overload
def accept_websocket(view: ViewT, /) -> ViewT: ...
@overload
def accept_websocket(*, accept: bool = ..., **options: Any) -> Callable[[ViewT], ViewT]: ...
def accept_websocket(view: ViewT | None = None, /, *, accept: bool = True, **options: Any) -> Any:
    """
    Lets a view take WebSockets as well as plain HTTP requests.

    A handshake is judged before the view starts. The view then runs detached from the server, on
    its own thread, and talks through ``request.websocket``; for a plain request that is None and
    ``request.is_websocket()`` is False. When the view returns the connection is closed with 1000.

    Args:
        view: A function, or what ``as_view()`` gives.
        accept: With False the view runs before the handshake is answered, and decides itself: by
            ``request.websocket.accept()`` or ``reject()``, or with a response or an exception, as
            for a page.
        **options: ``text_type``, ``allowed_origins``, ``require_origin``, ``subprotocols``,
            ``compression``, ``max_message_size``, ``max_frame_size``, ``max_fragments``,
            ``receive_buffer``, ``max_messages_per_second``, ``max_bytes_per_second``,
            ``rate_timeout``, ``ping_interval``, ``ping_timeout``, ``send_buffer``,
            ``send_timeout``, ``close_timeout``, ``handshake_timeout``: for this view, in place of
            the setting of the same name.

    Raises:
        TypeError: An option that does not exist.
        ValueError: A value that an option cannot have.
    """
    return _decorate("accept_websocket", view, accept, options)


@overload
def require_websocket(view: ViewT, /) -> ViewT: ...
@overload
def require_websocket(*, accept: bool = ..., **options: Any) -> Callable[[ViewT], ViewT]: ...
def require_websocket(view: ViewT | None = None, /, *, accept: bool = True, **options: Any) -> Any:
    """
    Lets a view take WebSockets only: a plain HTTP request gets 400.

    Otherwise as :func:`accept_websocket`.
    """
    return _decorate("require_websocket", view, accept, options)


websocket = accept_websocket


def _decorate(
    mode: str,
    view: Callable[..., Any] | None,
    accept: bool,  # noqa: FBT001
    options: dict[str, Any],
) -> Any:
    if not isinstance(accept, bool):
        raise ValueError(f"{mode}(accept=…) must be True or False, not {accept!r}")
    overrides = conf.overrides(mode, options)
    if view is None:
        return functools.partial(_wrap, mode, accept, overrides)
    if not callable(view):
        raise TypeError(f"{mode}() decorates views, not {type(view).__name__}")
    return _wrap(mode, accept, overrides, view)


def _wrap(
    mode: str,
    accept: bool,  # noqa: FBT001
    overrides: dict[str, Any],
    view: Callable[..., Any],
) -> Callable[..., Any]:
    def factory_of(request: HttpRequest) -> WebSocketFactory | None:
        """Gives what makes a WebSocket of the request, None when the view is to answer it."""
        if upgrade.has_websocket(request):
            # By another decorator or by middleware.
            return None
        return upgrade.prepare(request)

    def refusal(request: HttpRequest) -> HttpResponse | None:
        if mode == "require_websocket" and getattr(request, "websocket", None) is None:
            return upgrade.refuse(request, 400, "This address is for WebSockets only.")
        return None

    detached = Detached(view)
    if detached.is_async:

        @functools.wraps(view)
        async def wrapper(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
            if (factory := factory_of(request)) is not None:
                return await upgrade.aupgrade(
                    request, factory, detached, args, kwargs, overrides, accept=accept
                )
            response = refusal(request)
            if response is None:
                response = await view(request, *args, **kwargs)
            return inline.with_response(request, response)

    else:

        @functools.wraps(view)
        def wrapper(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
            if (factory := factory_of(request)) is not None:
                return upgrade.upgrade(
                    request, factory, detached, args, kwargs, overrides, accept=accept
                )
            response = refusal(request)
            if response is None:
                response = view(request, *args, **kwargs)
            return inline.with_response(request, response)

    # The middleware obeys the first; the second tells it that the view sees to itself.
    setattr(wrapper, mode, True)
    wrapper.__dict__["handles_websocket"] = True
    return wrapper
