"""Types for the annotations of a project, and those of the decorators."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, ParamSpec, Protocol, TypedDict, overload

from django.http import HttpRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Coroutine, Mapping
    from typing import Concatenate

    from django.http.response import HttpResponseBase

    from dwebsocket.groups.view_groups import Wanted
    from dwebsocket.websocket import WebSocket

P = ParamSpec("P")


class WebSocketRequest(HttpRequest):
    """
    The request of a view: ``def chat(request: WebSocketRequest)``.

    For annotations only. No request is an instance of it: requests are objects of Django's
    handlers, with two more attributes.

    Attributes:
        websocket: The connection. None for a plain HTTP request, which its type leaves out: a view
            of ``@accept_websocket`` calls :meth:`is_websocket` first, and any other has one.
    """

    websocket: WebSocket

    def is_websocket(self) -> bool:
        """Whether a WebSocket was asked for."""
        return getattr(self, "websocket", None) is not None


class CommonOptions(TypedDict, total=False):
    """The options of every decorator, and of ``asgi_websocket``."""

    groups: Wanted | None
    allowed_origins: Collection[str]
    require_origin: bool
    fallback: bool
    compression: bool | Mapping[str, bool | int]
    max_message_size: int
    max_frame_size: int | None
    max_fragments: int
    receive_buffer: int
    max_messages_per_second: float | None
    max_bytes_per_second: float | None
    rate_timeout: float | None
    ping_interval: float | None
    ping_timeout: float | None
    send_buffer: int
    send_timeout: float | None
    message_timeout: float | None
    close_timeout: float
    handshake_timeout: float | None


class ViewOptions(CommonOptions, total=False):
    """
    The options of ``accept_websocket`` and ``require_websocket``.

    ``accept``, ``groups``, ``resume`` and ``presence`` are the decorators' own; each other one
    overrides the setting of its name.
    """

    accept: bool
    resume: bool
    presence: bool | Callable[..., Any]
    text_type: type[str | bytes] | Literal["str", "bytes"]
    subprotocols: Collection[str]


class ViewDecorator(Protocol):
    """
    A decorator with options: it takes a view, and returns one that Django takes.

    A view may return None, for a WebSocket. The decorated one always returns a response. It
    has the parameters of the view; as its first one it takes every request.
    """

    @overload
    def __call__(
        self, view: Callable[Concatenate[Any, P], HttpResponseBase | None], /
    ) -> Callable[Concatenate[Any, P], HttpResponseBase]: ...
    @overload
    def __call__(
        self, view: Callable[Concatenate[Any, P], Coroutine[Any, Any, HttpResponseBase | None]], /
    ) -> Callable[Concatenate[Any, P], Coroutine[Any, Any, HttpResponseBase]]: ...
