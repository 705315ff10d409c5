"""Routers of Channels in Django's URL conf: `path("", asgi_websocket(router))` is an include."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import django
import pytest
from channels.auth import AuthMiddlewareStack
from channels.middleware import BaseMiddleware
from channels.routing import ProtocolTypeRouter, URLRouter
from channels.security.websocket import AllowedHostsOriginValidator, OriginValidator
from django.contrib.auth.decorators import login_required
from django.core.checks import run_checks
from django.db import connection
from django.http import HttpResponse
from django.test import Client
from django.urls import Resolver404, include, path, re_path, resolve, reverse
from django.views.decorators.cache import never_cache
from visit import Visit, handshake

from dwebsocket import asgi_websocket
from dwebsocket.servers import asking
from dwebsocket.testing import AsyncWebSocketClient

Override = Callable[..., None]
Scope = dict[str, Any]


class Application:
    """An ASGI application that accepts, and says its name and its route."""

    def __init__(self, name: str) -> None:
        self.name = name

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        route, left = scope["url_route"], scope["path_remaining"]
        answer = f"{self.name} {route['args']} {route['kwargs']} {left!r}"
        await send({"type": "websocket.send", "text": answer})


class Stamp(BaseMiddleware):
    """Middleware of a project's own."""


def page(request: Any, **kwargs: Any) -> HttpResponse:
    """Be a view of the site."""
    return HttpResponse("a page")


CHAT, NEWS, BOARD = Application("chat"), Application("news"), Application("board")
INNER = URLRouter(
    [
        path("chat/<room>/", CHAT, name="chat"),
        re_path(r"news/(\d+)/(\w+)/$", NEWS),
        path("fixed/", CHAT, {"room": "lobby"}),
        path("nested/<int:number>/", URLRouter([path("board/<slug:name>/", BOARD, name="board")])),
        path("nested/<int:number>/news/", NEWS),
        # Channels takes the first of these for an endpoint, as the router is behind middleware.
        path("behind/", Stamp(URLRouter([path("", BOARD)]))),
    ]
)
WRAPPED = [
    INNER,
    ProtocolTypeRouter({"http": page, "websocket": INNER}),
    AuthMiddlewareStack(INNER),
    ProtocolTypeRouter({"websocket": AllowedHostsOriginValidator(AuthMiddlewareStack(INNER))}),
    Stamp(Stamp(INNER)),
]
ids = ["URLRouter", "ProtocolTypeRouter", "AuthMiddlewareStack", "documentation", "own"]


@pytest.fixture
def answer(visit: Any, override: Override) -> Callable[..., str | int]:
    """Give what an application says at a path, or the status of the refusal."""

    def answer_(
        urlpatterns: Any, where: str, below: Sequence[str] = (), **environ: str
    ) -> str | int:
        middleware = [
            "django.contrib.sessions.middleware.SessionMiddleware",
            "django.contrib.auth.middleware.AuthenticationMiddleware",
            *below,
        ]
        override(ROOT_URLCONF=tuple(urlpatterns), MIDDLEWARE=middleware)
        made = Visit(handshake(where, HTTP_ORIGIN="http://testserver", **environ))
        response = made.answer()
        if response.status_code != 101:
            made.close()
            return response.status_code
        message = made.serve().client.receive()
        made.close()
        return str(message)

    # `visit` looks after what is left.
    return answer_


@pytest.mark.parametrize("router", WRAPPED, ids=ids)
@pytest.mark.parametrize("prefix", ["", "live/", "<slug:team>/"])
@pytest.mark.parametrize(
    ("where", "says"),
    [
        ("chat/lobby/", "chat () {'room': 'lobby'} ''"),
        ("news/7/today/", "news ('7', 'today') {} ''"),
        ("fixed/", "chat () {'room': 'lobby'} ''"),
        ("nested/7/board/blue/", "board () {'number': 7, 'name': 'blue'} ''"),
        # The nested router has nothing for it, the outer one goes on.
        ("nested/7/news/", "news () {'number': 7} ''"),
        ("behind/", "board () {} ''"),
    ],
)
def test_routes(answer: Any, router: Any, prefix: str, where: str, says: str) -> None:
    """Each route is found, at the root and below a prefix, whose arguments it gets, too."""
    if "<" in prefix:
        says = says.replace("{", "{'team': 'red', ").replace(", }", "}")
    at = prefix.replace("<slug:team>", "red")
    assert answer([path(prefix, asgi_websocket(router))], f"/{at}{where}") == says


@pytest.mark.parametrize("router", WRAPPED, ids=ids)
def test_what_no_route_matches(answer: Any, router: Any) -> None:
    """404; and the site's own patterns behind it are tried."""
    urlpatterns = [path("", asgi_websocket(router)), path("own/", asgi_websocket(BOARD))]
    for where in ("/", "/chat/", "/chat/a/b/", "/nested/7/", "/behind/more/", "/live/chat/lobby/"):
        assert answer(urlpatterns, where) == 404
    assert answer(urlpatterns, "/own/") == "board () {} ''"


@pytest.mark.parametrize(
    "router",
    [
        ProtocolTypeRouter({"http": page, "websocket": BOARD}),
        ProtocolTypeRouter({"websocket": AllowedHostsOriginValidator(AuthMiddlewareStack(BOARD))}),
        Stamp(ProtocolTypeRouter({"websocket": BOARD})),
    ],
    ids=["bare", "documentation", "own"],
)
class TestRouterWithoutPaths:
    """A `ProtocolTypeRouter` whose WebSockets have one application."""

    @pytest.mark.parametrize("where", ["/", "/any/where", "/page/"])
    def test_takes_each_websocket(self, answer: Any, router: Any, where: str) -> None:
        """At each path that no pattern before it has."""
        urlpatterns = [path("", asgi_websocket(router)), path("page/", page)]
        assert answer(urlpatterns, where) == f"board () {{}} {where[1:]!r}"

    def test_below_a_prefix(self, answer: Any, router: Any) -> None:
        """Those below it, and no other."""
        urlpatterns = [
            path("before/", asgi_websocket(BOARD)),
            path("live/", asgi_websocket(router)),
        ]
        assert answer(urlpatterns, "/live/a/b") == "board () {} 'a/b'"
        assert answer(urlpatterns, "/before/") == "board () {} ''"
        assert answer(urlpatterns, "/lively/") == 404

    def test_takes_no_page(self, override: Override, router: Any) -> None:
        """Those of the patterns behind it are served, and others are not found."""
        override(ROOT_URLCONF=(path("", asgi_websocket(router)), path("page/", page)))
        client = Client()
        assert client.get("/page/").content == b"a page"
        assert client.get("/any/where").status_code == 404


def test_router_without_paths_in_an_event_loop(override: Override) -> None:
    """The same under ASGI."""
    router = ProtocolTypeRouter({"websocket": BOARD})
    override(ROOT_URLCONF=(path("", asgi_websocket(router)), path("page/", page)))

    async def visit() -> tuple[bytes, str]:
        # As a request under WSGI may have left it on the thread.
        asking.note(is_websocket=True)
        client = AsyncWebSocketClient(headers={"origin": "http://testserver"})
        content = (await client.get("/page/")).content
        async with client.websocket("/page/") as ws:
            return content, str(await ws.receive())

    assert asyncio.run(visit()) == (b"a page", "board () {} 'page/'")


def test_pages_beside_it(override: Override) -> None:
    """Patterns before and behind it are the site's, as ever."""
    override(
        ROOT_URLCONF=(
            path("before/", page),
            path("", asgi_websocket(INNER)),
            path("chat/", page, name="behind"),
        )
    )
    assert resolve("/before/").func is page
    assert resolve("/chat/").func is page
    assert reverse("behind") == "/chat/"


def test_within_an_include(answer: Any) -> None:
    """As any `include()`."""
    urlpatterns = [path("a/<int:number>/", include([path("b/", asgi_websocket(INNER))]))]
    assert answer(urlpatterns, "/a/5/b/chat/x/") == "chat () {'number': 5, 'room': 'x'} ''"


@pytest.mark.parametrize(
    ("where", "says"),
    [
        ("year/42/of/anna/book/blue/page/10/", "{'year': '42', 'name': 'anna', 'page': '10'}"),
        ("shelf/left/news/7/today/", "('left', '7', 'today')"),
    ],
)
def test_arguments_of_nested_routes(answer: Any, where: str, says: str) -> None:
    """Those of the outer router, and then those of the inner one, named or not."""
    inner = URLRouter(
        [
            re_path(r"^book/\w+/page/(?P<page>\d+)/$", BOARD),
            re_path(r"^news/(\d+)/(\w+)/$", NEWS),
        ]
    )
    outer = URLRouter(
        [
            re_path(r"^year/(?P<year>\d+)/of/(?P<name>\w+)/", inner),
            re_path(r"^shelf/(\w+)/", inner),
        ]
    )
    assert says in answer([path("", asgi_websocket(outer))], f"/{where}")


def test_route_of_the_request(override: Override) -> None:
    """The match names the route and the consumer, has its arguments, and can be reversed."""
    override(ROOT_URLCONF=(path("<slug:team>/", asgi_websocket(AuthMiddlewareStack(INNER))),))
    match = resolve("/red/nested/7/board/blue/")
    assert match.kwargs == {
        "team": "red",
        "number": 7,
        "name": "blue",
        "path_remaining": "nested/7/board/blue/",
    }
    assert match.url_name == "board"
    assert match.func.__name__ == "Application"
    assert reverse("chat", kwargs={"team": "red", "room": "x"}) == "/red/chat/x/"
    assert reverse("board", kwargs={"team": "red", "number": 7, "name": "x"}) == (
        "/red/nested/7/board/x/"
    )


def test_groups_of_a_route(answer: Any) -> None:
    """A template is filled in from the route that matches; one without its argument is an error."""
    urlpatterns = [path("", asgi_websocket(INNER, groups="room-{room}"))]
    assert answer(urlpatterns, "/chat/lobby/") == "chat () {'room': 'lobby'} ''"


def test_middleware_that_refuses(answer: Any) -> None:
    """Channels' own middleware runs between ours and the consumer."""
    router = OriginValidator(INNER, ["friend.example"])
    assert answer([path("", asgi_websocket(router))], "/chat/lobby/") == 403


def test_leading_slashes(answer: Any) -> None:
    """Are left out, as Channels does before it looks for a route."""
    router = URLRouter([re_path("^ws", URLRouter([path("chat/", CHAT)]))])
    urlpatterns = [path("", asgi_websocket(router))]
    assert answer(urlpatterns, "/ws/chat/") == "chat () {} ''"


def test_below_a_script_name(answer: Any) -> None:
    """The site itself is below a prefix of the server."""
    urlpatterns = [path("", asgi_websocket(INNER))]
    assert answer(urlpatterns, "/chat/lobby/", SCRIPT_NAME="/site") == (
        "chat () {'room': 'lobby'} ''"
    )


@pytest.mark.parametrize(
    ("where", "found"), [("/chat/a/", "chat () {'room': 'a'} ''"), ("/x/", 404)]
)
def test_under_a_decorator(answer: Any, where: str, found: str | int) -> None:
    """A decorator makes a view of it, for a pattern that leaves the whole path to it."""

    def decorated(view: Any) -> Any:
        async def wrapper(request: Any, *args: Any, **kwargs: Any) -> Any:
            return await view(request, *args, **kwargs)

        return wrapper

    assert answer([re_path("", decorated(asgi_websocket(INNER)))], where) == found


def test_attributes_under_a_decorator(
    answer: Any, override: Override, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Our middleware leaves it alone, and so does ATOMIC_REQUESTS."""
    monkeypatch.setitem(connection.settings_dict, "ATOMIC_REQUESTS", True)
    view = never_cache(asgi_websocket(INNER))
    assert (view.accept_websocket, view.require_websocket) == (True, True)
    ours = ["dwebsocket.middleware.WebSocketMiddleware"]
    assert answer([re_path("", view)], "/chat/a/", below=ours) == "chat () {'room': 'a'} ''"


@pytest.mark.skipif(django.VERSION < (5, 1), reason="Django decorates async views since 5.1")
def test_login_required(answer: Any) -> None:
    """Django's own decorators see an async view."""
    urlpatterns = [re_path("", login_required(asgi_websocket(INNER)))]
    assert answer(urlpatterns, "/chat/lobby/") == 302


def test_checks(override: Override) -> None:
    """Django's system checks have nothing to say about it."""
    override(ROOT_URLCONF=(path("live/", asgi_websocket(AuthMiddlewareStack(INNER))),))
    assert run_checks(tags=["urls"]) == []


def test_debug_page(override: Override) -> None:
    """What was tried, for Django's page about a path that nothing matches."""
    override(ROOT_URLCONF=(path("live/", asgi_websocket(URLRouter([path("chat/", CHAT)]))),))
    with pytest.raises(Resolver404) as caught:
        resolve("/live/news/")
    tried = [[str(pattern.pattern) for pattern in each] for each in caught.value.args[0]["tried"]]
    assert tried == [["live/", "", "chat/"]]


def test_router_without_websockets() -> None:
    """Is found when the URL conf is read."""
    with pytest.raises(ValueError, match="ProtocolTypeRouter has no application for 'websocket'"):
        asgi_websocket(ProtocolTypeRouter({"http": page}))


def test_other_routers(answer: Any) -> None:
    """Those whose routes are no patterns of Django get the whole path: they are plain views."""

    class Other(Application):
        routes = (object(),)

    urlpatterns = [re_path("^other/", asgi_websocket(Other("other")))]
    assert answer(urlpatterns, "/other/way/") == "other () {} ''"


def test_application_that_wraps_itself(answer: Any) -> None:
    """Is no reason to look for a router for ever."""
    application = Application("one")
    application.inner = application  # type: ignore[attr-defined]
    assert answer([path("one/", asgi_websocket(application))], "/one/") == "one () {} ''"
