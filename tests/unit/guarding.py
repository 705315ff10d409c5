"""Guards before WebSockets: the places where they stand, who is let in, and what the page says."""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from django.contrib.auth.mixins import PermissionRequiredMixin, UserPassesTestMixin
from django.contrib.auth.models import AnonymousUser, User
from django.http import HttpResponse, HttpResponseForbidden
from django.test import RequestFactory
from django.utils.decorators import method_decorator
from django.views import View
from visit import handshake

from dwebsocket import WebSocketHandler, accept_websocket, asgi_websocket

if TYPE_CHECKING:
    from collections.abc import Callable

    from visit import Environ, Serve

MIDDLEWARE = "dwebsocket.middleware.WebSocketMiddleware"
SIGN_IN = "guarding.sign_in"
#: For WEBSOCKET_GROUPS.
IN_PROCESS = {"default": {"BACKEND": "dwebsocket.groups.process"}}
_PAGE = (Path(__file__).parents[2] / "docs" / "security.md").read_text(encoding="utf-8")

#: What ran behind a guard, since the last :func:`outcome` began.
reached: list[str] = []


def sign_in(get_response: Any) -> Any:
    """Middleware: let a user with all rights sign in by a query parameter."""

    def middleware(request: Any) -> HttpResponse:
        user: Any = AnonymousUser()
        if "user" in request.GET:
            user = User(username="anna", is_superuser=True, is_staff=True, is_active=True)

        async def auser() -> Any:
            return user

        request.user, request.auser = user, auser
        return get_response(request)

    return middleware


# -- what is guarded ------------------------------------------------------------------------------


def talk(request: Any, **kwargs: Any) -> HttpResponse | None:
    """Echo, or a page."""
    reached.append("view")
    if not request.is_websocket():
        return HttpResponse("secret")
    for message in request.websocket:
        request.websocket.send(message)
    return None


def new_view() -> Any:
    """Make a view of its own: some decorators set attributes of it."""

    def view(request: Any, **kwargs: Any) -> HttpResponse | None:
        return talk(request)

    return view


async def application(scope: Any, receive: Any, send: Any) -> None:
    """Echo, as an ASGI application."""
    reached.append("application")
    await receive()
    await send({"type": "websocket.accept"})
    while (event := await receive())["type"] == "websocket.receive":
        await send({**event, "type": "websocket.send"})


class Page(View):
    """A view without a decorator."""

    def get(self, request: Any, **kwargs: Any) -> Any:
        """Echo, or a page."""
        return talk(request)


class Get(View):
    """A view whose method is decorated."""

    @method_decorator(accept_websocket(fallback=True))
    def get(self, request: Any, **kwargs: Any) -> Any:
        """Echo, or a page."""
        return talk(request)


class Handler(WebSocketHandler):
    """A handler with a page, all of it sync."""

    fallback = True

    def receive(self, message: Any) -> None:
        """Echo."""
        reached.append("receive")
        self.websocket.send(message)

    def get(self, request: Any, **kwargs: Any) -> Any:
        """Give the page."""
        reached.append("get")
        return HttpResponse("secret")


class Connecting(Handler):
    """The same, and decides itself."""

    def connect(self) -> None:
        """Accept."""
        reached.append("connect")


class AsyncHandler(WebSocketHandler):
    """A handler with a page, all of it async."""

    fallback = True

    async def connect(self) -> None:
        """Accept."""
        reached.append("connect")

    async def receive(self, message: Any) -> None:
        """Echo."""
        reached.append("receive")
        await self.websocket.asend(message)

    async def get(self, request: Any, **kwargs: Any) -> Any:
        """Give the page."""
        reached.append("get")
        return HttpResponse("secret")


class MixedHandler(Handler):
    """An async one whose page is sync."""

    async def receive(self, message: Any) -> None:
        """Echo."""
        reached.append("receive")
        await self.websocket.asend(message)


HANDLERS = [Handler, Connecting, AsyncHandler, MixedHandler]


# -- guards ----------------------------------------------------------------------------------------


class AsksUser(UserPassesTestMixin):
    """One that asks the project."""

    def test_func(self) -> bool:
        return bool(self.request.user.is_superuser)  # type: ignore[attr-defined]


class NeedsPermission(PermissionRequiredMixin):
    """One that asks for a permission."""

    permission_required = "rooms.enter"


class OwnDispatch:
    """A project's own."""

    def dispatch(self, request: Any, *args: Any, **kwargs: Any) -> Any:
        if not request.user.is_authenticated:
            return HttpResponseForbidden("not you")
        return super().dispatch(request, *args, **kwargs)  # type: ignore[misc]


# -- where guards stand ---------------------------------------------------------------------------


def on_class(guard: Any, cls: Any) -> Any:
    """Guard a class: by a mixin, or by a decorator of its dispatch."""
    if isinstance(guard, type):
        return type(cls.__name__, (guard, cls), {}).as_view()  # type: ignore[attr-defined]
    return method_decorator(guard, name="dispatch")(type(cls.__name__, (cls,), {})).as_view()


def _above(guard: Any, view: Any) -> list[Any]:
    return [] if isinstance(guard, type) else [guard(view)]


#: As the columns of the table are headed: views with a guard there.
PLACES: dict[str, Callable[[Any], list[Any]]] = {
    "above `@accept_websocket`": lambda guard: _above(
        guard, accept_websocket(fallback=True)(new_view())
    ),
    "on a `View` with a decorated `get`": lambda guard: [on_class(guard, Get)],
    "on a `WebSocketHandler`": lambda guard: [on_class(guard, cls) for cls in HANDLERS],
    "above `asgi_websocket()`": lambda guard: _above(
        guard, asgi_websocket(application, fallback=True)
    ),
    "below `@accept_websocket`": lambda guard: [
        accept_websocket(fallback=True)(view)
        for view in [*_above(guard, new_view()), on_class(guard, Page)]
    ],
}


@functools.cache
def table() -> dict[str, dict[str, str]]:
    """Give the table of docs/security.md: by guard and by place what a client gets."""
    head = next(line for line in _PAGE.splitlines() if line.startswith("| Guard |"))
    columns = [each.strip() for each in head.strip(" |").split(" | ")][1:]
    rows = re.findall(r"^\| (.+)$", _PAGE[_PAGE.index(head) :].split("\n\n")[0], re.MULTILINE)
    found = {}
    for row in rows[1:]:
        guards, *cells = [each.strip() for each in row.strip(" |").split(" | ")]
        found |= {each: dict(zip(columns, cells, strict=True)) for each in guards.split("; ")}
    return found


def plain(method: str = "GET", query: str = "") -> Environ:
    """Make the environ of a request that is no handshake."""
    path = f"/?{query}"
    if method == "POST":
        return dict(RequestFactory().post(path, b"{}", content_type="application/json").environ)
    return dict(RequestFactory().get(path).environ)


#: The ways into a view with the fallback, and its page.
WAYS: dict[str, Callable[[], Environ]] = {
    "handshake": handshake,
    "stream": lambda: plain(query="transport=sse"),
    "polling": lambda: plain(query="transport=polling"),
    "poll": lambda: plain(query="transport=polling&id=x&ack=0"),
    "post": lambda: plain("POST", "transport=sse&id=x"),
    "page": plain,
}


def outcome(visit: Serve, view: Any, middleware: list[str], environ: Environ) -> str:
    """Make a request, and give what its client gets, as cells of the table say it."""
    reached.clear()
    made = visit(view, middleware=middleware, environ=environ)
    if made.response.status_code != 101:
        return str(made.response.status_code)
    made.serve()
    return f"101, then {made.client.closing()[0]}"


def refuses(visit: Serve, view: Any, middleware: list[str], expected: str) -> None:
    """See that nobody gets to a guarded view, on no way."""
    ways = WAYS if "then" not in expected else {"handshake": handshake}
    for way, environ in ways.items():
        assert (way, outcome(visit, view, middleware, environ())) == (way, expected)
        assert reached == []
