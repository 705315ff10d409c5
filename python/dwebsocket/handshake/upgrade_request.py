"""
A request that may be a handshake, with all that its validation and its view need to know of it.

``request.is_websocket`` and ``request.websocket``, which is not open yet, are attributes of every
request under this package.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string

from dwebsocket import conf
from dwebsocket.factory import WebSocketFactory
from dwebsocket.groups.view_groups import ViewGroups
from dwebsocket.request import HANDSHAKE_KEY, http_request
from dwebsocket.servers.asgi import SCOPE_KEY
from dwebsocket.servers.handshake import Handshake
from dwebsocket.websocket import WebSocket

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from django.http import HttpRequest

    from dwebsocket.runners.view import Detached

_NO_GROUPS = ViewGroups("", ())
# The values of `request.is_websocket`, shared by all requests.
_yes, _no = functools.partial(bool, True), functools.partial(bool, False)  # noqa: FBT003


class UpgradeRequest:
    """
    A request to a view that takes WebSockets, and that view.

    Attributes:
        given: What the view gets: Django's request, or one that wraps it.
        request: Django's.
        view: Run behind the WebSocket as ``view.call(given, *args, **kwargs)``. None where the view
            takes no GET, so that nothing is a handshake.
        groups: The groups of this view's decorator.
        new_start: Makes what starts the view, if that is no ``Start``.
        now: The project's settings.
        factory: Makes the WebSocket; known when this :meth:`is_handshake`.
    """

    def __init__(
        self,
        given: Any,
        view: Detached | None,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        overrides: Mapping[str, Any],
        groups: ViewGroups | None = None,
        new_start: Callable[[UpgradeRequest], Any] | None = None,
    ) -> None:
        """``overrides`` are options of this view that differ from the settings."""
        self.given = given
        self.request: HttpRequest = http_request(given)
        self.view, self.args, self.kwargs = view, args, kwargs
        self._overrides = overrides
        self.groups, self.new_start = groups or _NO_GROUPS, new_start
        self.now = conf.present()
        self.factory: WebSocketFactory | None = None

    @functools.cached_property
    def options(self) -> conf.Options:
        """The view's. Raises ``ImproperlyConfigured`` where a setting is invalid."""
        return conf.Options.current(self._overrides, self.now)

    @functools.cached_property
    def handshake(self) -> Handshake:
        """The steps to the connection, by the server. The fallback sets its own."""
        if isinstance(found := self.request.META.get(HANDSHAKE_KEY), Handshake):
            return found
        # Only requests of ASGI servers have a scope.
        scope = self.request.__dict__.get("scope")
        found = None if scope is None else scope.get(SCOPE_KEY)
        if isinstance(found, Handshake):
            return found
        return Handshake(self.request.method or "", self.request.META, scope)

    def is_handshake(self) -> bool:
        """Whether it is a handshake, even a malformed one, whose WebSocket nobody has taken yet."""
        if self.view is not None and not has_websocket(self.request):
            self.factory = prepare(self.request, self.now)
        return self.factory is not None


def prepare(request: HttpRequest, now: conf.Snapshot | None = None) -> WebSocketFactory | None:
    """
    Gives a request the attributes that every request has under this package.

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
    default = path is None or path in conf.DEFAULT_FACTORIES
    asked = request.__dict__.get("is_websocket")
    if default and asked is not None and not asked():
        # The middleware has already classified the request as plain HTTP; the view need not.
        return None
    factory: WebSocketFactory = (WebSocketFactory if default else import_string(path))(request)
    is_websocket = bool(factory.is_websocket())
    # Not the factory's method: the factory refers to the request, which would be a cycle.
    request.__dict__["is_websocket"] = _yes if is_websocket else _no
    request.__dict__["websocket"] = unopened(request) if is_websocket else None
    return factory if is_websocket else None


def note_plain(request: HttpRequest) -> None:
    """Gives a request that nobody has prepared the attributes of plain HTTP."""
    request.__dict__.setdefault("is_websocket", _no)
    request.__dict__.setdefault("websocket", None)


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
    """
    Returns a request's WebSocket, not open yet, or why there is none.

    Raises:
        ImproperlyConfigured: The project's factory makes something else.
    """
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
