"""
Routers of ASGI applications, such as Channels' ``URLRouter``, as patterns of Django's URL conf.

Their routes are Django's own patterns already. Here they become patterns that lead to views, so
that Django looks for a match among them, as in any included URL conf: without one it goes on to the
site's next pattern. The application then routes once more by itself, through its own middleware.

A ``ProtocolTypeRouter`` around one application has a route for each path, which is there for
WebSockets only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.urls import Resolver404, URLPattern, URLResolver, re_path

from dwebsocket.compat import consumers
from dwebsocket.runners.asgi_apps import either_way
from dwebsocket.servers import asking

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from django.http import HttpRequest
    from django.urls.resolvers import ResolverMatch

    Application = Callable[..., Awaitable[Any]]
    View = Callable[..., Any]

# Where middleware keeps the application that it wraps.
_WRAPPED = ("inner", "application", "app")
#: The argument of the views that has the path below their prefix.
PATH = "path_remaining"


def routes_of(application: Any) -> list[Any] | None:
    """
    Returns the routes of a router, also of one behind middleware; None for any other application.

    Raises:
        ValueError: It routes by the type of the scope, and has nothing for ``"websocket"``.
    """
    seen: set[int] = set()
    is_by_type = False
    while id(application) not in seen:
        seen.add(id(application))
        routes = getattr(application, "routes", None)
        if isinstance(routes, (list, tuple)) and all(_is_of_django(route) for route in routes):
            return list(routes)
        is_by_type = is_by_type or consumers.by_type(application) is not None
        application = _inside(application)
    if not is_by_type:
        return None
    asking.watch()
    return [_ForWebSockets(_everything(), application)]


def _is_of_django(route: object) -> bool:
    return hasattr(route, "pattern") and hasattr(route, "callback")


def _inside(application: Any) -> Any:
    """Returns what the application wraps; itself when it wraps nothing."""
    mapping = consumers.by_type(application)
    if mapping is not None:
        if "websocket" not in mapping:
            raise ValueError(f"{type(application).__name__} has no application for 'websocket'")
        return mapping["websocket"]
    for name in _WRAPPED:
        if callable(inner := getattr(application, name, None)):
            return inner
    return application


class Include(tuple):  # type: ignore[type-arg]
    """
    A router for the URL conf: what ``include()`` gives, and a view as well.

    As a view it finds its route by the whole path of the request; decorators may wrap it.
    """

    resolver: URLResolver

    @classmethod
    def of(cls, routes: Iterable[Any], view_of: Callable[[Any], View]) -> Include:
        """Returns that of ``routes``, whose views are what ``view_of`` makes of an application."""
        resolver = _Outermost(_everything(), _patterns(routes, view_of))
        include = cls(([resolver], None, None))
        include.resolver = resolver
        return include

    def __getattr__(self, name: str) -> Any:
        # Async as its views are.
        return either_way.mark(name)

    def __call__(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        """
        Answers as the view of the route that the request's path leads to.

        Raises:
            Resolver404: There is none.
        """
        view, _, found = self.resolver.resolve(request.path_info.lstrip("/"))
        return view(request, *args, **{**kwargs, **found})


def _everything() -> Any:
    """Returns a pattern that is met by each path, and takes nothing of it."""
    return re_path("", ([], None, None)).pattern


def _patterns(routes: Iterable[Any], view_of: Callable[[Any], View]) -> list[Any]:
    patterns: list[Any] = []
    for route in routes:
        inner = routes_of(route.callback)
        if inner is None:
            kind = _ForWebSockets if isinstance(route, _ForWebSockets) else _Route
            view = view_of(route.callback)
            patterns.append(kind(route.pattern, view, route.default_args, route.name))
        else:
            inside = _patterns(inner, view_of)
            patterns.append(_Router(route.pattern, inside, route.default_args))
    return patterns


class _Route(URLPattern):
    """A route that leads to an application."""

    def resolve(self, path: str) -> ResolverMatch | None:
        # As a router does before it looks for a match.
        return super().resolve(path.lstrip("/"))


class _ForWebSockets(_Route):
    """The route of an application that takes all WebSockets. Pages are left to other patterns."""

    def resolve(self, path: str) -> ResolverMatch | None:
        if not asking.is_websocket():
            raise Resolver404({"path": path})
        return super().resolve(path)


class _Router(URLResolver):
    """A route that leads to another router."""

    def resolve(self, path: str) -> ResolverMatch:
        return super().resolve(path.lstrip("/"))


class _Outermost(URLResolver):
    """All routes of an application."""

    def resolve(self, path: str) -> ResolverMatch:
        match = super().resolve(path)
        match.kwargs[PATH] = path
        # Arguments without a name: the application finds them once more.
        match.args = ()
        return match
