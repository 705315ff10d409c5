"""A handshake, with all that its validation and its view need to know of it."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from dwebsocket import conf
from dwebsocket.groups.view_groups import ViewGroups
from dwebsocket.handshake.attributes import has_websocket, prepare
from dwebsocket.request import http_request
from dwebsocket.servers.asgi import SCOPE_KEY
from dwebsocket.servers.handshake import Handshake

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from django.http import HttpRequest

    from dwebsocket.factory import WebSocketFactory
    from dwebsocket.runners.view import Detached

_NO_GROUPS = ViewGroups("", ())


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
