"""A request's attributes: ``request.is_websocket`` and ``request.websocket``, not open yet."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string

from dwebsocket import conf
from dwebsocket.factory import WebSocketFactory
from dwebsocket.handshake.refusal import refuse
from dwebsocket.websocket import WebSocket

if TYPE_CHECKING:
    from django.http import HttpRequest, HttpResponse

# The values of WEBSOCKET_FACTORY_CLASS that mean the default: no name, and the original's classes.
DEFAULT_FACTORIES = (
    None,
    "dwebsocket.factory.WebSocketFactory",
    "dwebsocket.backends.default.factory.WebSocketFactory",
    "dwebsocket.backends.uwsgi.factory.uWsgiWebSocketFactory",
)
# The values of `request.is_websocket`, shared by all requests.
_yes, _no = functools.partial(bool, True), functools.partial(bool, False)  # noqa: FBT003


def prepare(request: HttpRequest, now: conf.Snapshot | None = None) -> WebSocketFactory | None:
    """
    Returns a request the attributes that every request has under this package.

    Args:
        request: Django's, as everywhere in this module.
        now: The result of :func:`dwebsocket.conf.present`, if the caller has it.

    Returns:
        The project's factory when it takes the request for a WebSocket, None for plain HTTP.

    Raises:
        ImproperlyConfigured: ``WEBSOCKET_FACTORY_CLASS`` is no dotted path.
        ImportError: There is nothing at that path.
    """
    path = conf.get("FACTORY_CLASS", now)
    default = path in DEFAULT_FACTORIES
    asked = request.__dict__.get("is_websocket")
    if default and asked is not None and not asked():
        # The middleware has already classified the request as plain HTTP; the view need not.
        return None
    factory: WebSocketFactory = (WebSocketFactory if default else import_string(path))(request)
    is_websocket = bool(factory.is_websocket())
    made = unopened(request) if is_websocket else None
    # Not the factory's method: the factory refers to the request, which would be a cycle.
    request.__dict__.update(websocket=made, is_websocket=_yes if is_websocket else _no)
    return factory if is_websocket else None


def create_websocket(request: HttpRequest, factory: WebSocketFactory) -> HttpResponse | None:
    """
    Puts a WebSocket that is yet to be opened on a handshake, unless middleware has done so.

    Returns:
        The refusal when there is none.

    Raises:
        ImproperlyConfigured: The project's factory makes something else.
    """
    made = make(request, factory)
    if isinstance(made, str):
        return refuse(request, 400, made)
    request.__dict__["websocket"] = made
    return None


def has_websocket(request: HttpRequest) -> bool:
    """Whether a request has its WebSocket: open, or given to a view that opens it."""
    websocket = request.__dict__.get("websocket")
    return websocket is not None and unopened(request) is None


def is_open(request: HttpRequest) -> bool:
    """Whether a view that runs now has an open WebSocket, which may have been closed since."""
    websocket = request.__dict__.get("websocket")
    return isinstance(websocket, WebSocket) and websocket._connection is not None


def unopened(request: HttpRequest) -> WebSocket | None:
    """Returns the WebSocket that middleware has made of a request, if it is not in use yet."""
    websocket = request.__dict__.get("websocket")
    is_unopened = (
        isinstance(websocket, WebSocket)
        and websocket._connection is None
        # A WebSocket with a decision belongs to a view that decides.
        and websocket._decision is None
    )
    return websocket if is_unopened else None


def make(request: HttpRequest, factory: WebSocketFactory) -> WebSocket | str:
    """Returns a request's WebSocket, not open yet, or why there is none."""
    websocket = unopened(request)
    if websocket is not None:
        return websocket
    try:
        websocket = factory.create_websocket()
    except ValueError as error:
        return f"{type(factory).__name__}.create_websocket() refuses this request: {error}"
    if websocket is None:
        return "WEBSOCKET_FACTORY_CLASS makes no WebSocket of this request."
    if not isinstance(websocket, WebSocket):
        raise ImproperlyConfigured(
            f"WEBSOCKET_FACTORY_CLASS: {type(factory).__name__}.create_websocket() must give a "
            f"dwebsocket.WebSocket or None, not {type(websocket).__name__}."
        )
    return websocket
