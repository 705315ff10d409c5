"""The scope of an ASGI application: what the specification and Channels describe."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from django.contrib.auth.models import AnonymousUser, User
from django.contrib.sessions.backends.cache import SessionStore
from django.core.handlers.asgi import ASGIRequest
from django.core.handlers.wsgi import WSGIRequest
from django.test import override_settings
from django.urls import path
from visit import Serve, handshake

from dwebsocket import asgi_websocket
from dwebsocket.runners.asgi_apps.scope import scope_of
from dwebsocket.servers.asgi import SCOPE_KEY
from dwebsocket.testing import AsyncWebSocketClient, WebSocketClient

if TYPE_CHECKING:
    from collections.abc import Callable

Scope = dict[str, Any]

SESSIONS = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
]


def of_environ(url: str = "/chat/", **changes: str | None) -> Scope:
    """Make the scope of a handshake on a WSGI server."""
    return made_of(WSGIRequest(handshake(url, **changes)))


def of_server(**changes: Any) -> Scope:
    """Make the scope of a handshake on an ASGI server, whose own scope has these entries."""
    given = {
        "type": "websocket",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "2",
        "scheme": "http",
        "method": "GET",
        "path": "/chat/",
        "raw_path": b"/chat/",
        "query_string": b"a=%C3%A9",
        "root_path": "",
        "headers": [(b"host", b"testserver"), (b"x", b"1"), (b"x", b"2")],
        "client": ("10.0.0.1", 4000),
        "server": ("10.0.0.2", 80),
        "subprotocols": ["a"],
        SCOPE_KEY: object(),
        **changes,
    }
    return made_of(ASGIRequest(given, None))


def made_of(
    request: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None, left: str = ""
) -> Scope:
    """Make the scope of a request."""
    request.websocket = SimpleNamespace(offered_subprotocols=("a", "b"))
    return scope_of(request, args, kwargs or {}, left)


class TestBehindWsgi:
    """From an environ."""

    def test_whole(self) -> None:
        """Every entry, with the types that applications expect."""
        scope = of_environ(
            "/?name=%C3%A9",
            # As servers write it: its bytes as Latin-1.
            PATH_INFO="/chat/café/".encode().decode("latin-1"),
            HTTP_COOKIE="a=1; b=2",
            HTTP_USER_AGENT="tests",
            REMOTE_ADDR="10.0.0.1",
            REMOTE_PORT="4000",
            CONTENT_TYPE="text/plain",
        )
        headers = scope.pop("headers")
        assert scope == {
            "type": "websocket",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "scheme": "ws",
            "path": "/chat/café/",
            "raw_path": b"/chat/caf%C3%A9/",
            "root_path": "",
            "path_remaining": "",
            "query_string": b"name=%C3%A9",
            "client": ("10.0.0.1", 4000),
            "server": ("testserver", 80),
            "subprotocols": ["a", "b"],
            "extensions": {"websocket.http.response": {}},
            "state": {},
            "url_route": {"args": (), "kwargs": {}},
            "cookies": {"a": "1", "b": "2"},
        }
        assert {
            (b"host", b"testserver"),
            (b"upgrade", b"websocket"),
            (b"cookie", b"a=1; b=2"),
            (b"user-agent", b"tests"),
            (b"content-type", b"text/plain"),
        } <= set(headers)

    @pytest.mark.parametrize(
        ("changes", "entry"),
        [
            ({"wsgi.url_scheme": "https"}, ("scheme", "wss")),
            ({"SERVER_PROTOCOL": "HTTP/1.0"}, ("http_version", "1.0")),
            ({"SCRIPT_NAME": "/site"}, ("root_path", "/site")),
            ({"SCRIPT_NAME": "/site"}, ("path", "/site/chat/")),
            ({"SCRIPT_NAME": "/site"}, ("raw_path", b"/site/chat/")),
            ({"RAW_URI": "/ch%61t/?a=1"}, ("raw_path", b"/ch%61t/")),
            ({"REQUEST_URI": "http://testserver/ch%61t/?a=1"}, ("raw_path", b"/ch%61t/")),
            # Unix sockets.
            ({"REMOTE_ADDR": "", "REMOTE_PORT": ""}, ("client", None)),
            ({"REMOTE_PORT": None}, ("client", ("127.0.0.1", None))),
            ({"SERVER_PORT": ""}, ("server", ("testserver", None))),
        ],
    )
    def test_entries(self, changes: dict[str, str | None], entry: tuple[str, Any]) -> None:
        """What servers write in different ways."""
        name, value = entry
        assert of_environ(**changes)[name] == value

    def test_scheme_behind_a_proxy(self) -> None:
        """As `request.is_secure()` says."""
        with override_settings(SECURE_PROXY_SSL_HEADER=("HTTP_X_FORWARDED_PROTO", "https")):
            assert of_environ(HTTP_X_FORWARDED_PROTO="https")["scheme"] == "wss"

    def test_route(self) -> None:
        """The URL's arguments, and the rest of its path."""
        scope = made_of(WSGIRequest(handshake()), ("x",), {"room": 7}, "left/")
        assert scope["url_route"] == {"args": ("x",), "kwargs": {"room": 7}}
        assert scope["path_remaining"] == "left/"


class TestBehindAsgi:
    """From the scope of the server."""

    def test_whole(self) -> None:
        """The server's entries, without those of the request that Django has made of it."""
        state = {"pool": object()}
        scope = of_server(state=state, extensions={"websocket.http.response": {}}, more="kept")
        assert scope == {
            "type": "websocket",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "2",
            "scheme": "ws",
            "path": "/chat/",
            "raw_path": b"/chat/",
            "root_path": "",
            "path_remaining": "",
            "query_string": b"a=%C3%A9",
            "headers": [(b"host", b"testserver"), (b"x", b"1"), (b"x", b"2")],
            "client": ("10.0.0.1", 4000),
            "server": ("10.0.0.2", 80),
            "subprotocols": ["a", "b"],
            "extensions": {"websocket.http.response": {}},
            "state": state,
            "url_route": {"args": (), "kwargs": {}},
            "cookies": {},
            "more": "kept",
        }
        assert scope["state"] is not state

    def test_server_without_denial_responses(self) -> None:
        """The application is not told of what the server cannot do."""
        assert of_server()["extensions"] == {}
        assert of_server(extensions=None)["extensions"] == {}


class Views:
    """A URL conf that notes the scope of an application."""

    def __init__(self) -> None:
        self.scope: Scope = {}
        self.urlpatterns = (path("chat/<int:room>/", asgi_websocket(self.application)),)

    async def application(self, scope: Scope, receive: Any, send: Any) -> None:
        self.scope = scope
        await receive()
        await send({"type": "websocket.accept"})
        await receive()


@pytest.fixture
def views(override: Callable[..., None]) -> Views:
    """The application at `/chat/<room>/`, behind Django's middleware for users."""
    found = Views()
    override(ROOT_URLCONF=found.urlpatterns, MIDDLEWARE=SESSIONS)
    return found


def test_user_and_session(views: Views, anna: User) -> None:
    """Those of the request: the user can be used in the event loop, no query is left to make."""
    client = WebSocketClient()
    client.force_login(anna)
    with client.websocket("/chat/7/"):
        user, session = views.scope["user"], views.scope["session"]
    assert user == anna
    assert isinstance(session, SessionStore)
    assert views.scope["url_route"] == {"args": (), "kwargs": {"room": 7}}
    assert views.scope["cookies"] == {"sessionid": session.session_key}


def test_nobody(views: Views, tables: None) -> None:
    """Anonymous users, too."""
    with WebSocketClient().websocket("/chat/7/"):
        assert views.scope["user"] == AnonymousUser()


def test_without_their_middleware(visit: Serve) -> None:
    """There is neither user nor session: the application's own middleware may add them."""
    views = Views()
    made = visit(asgi_websocket(views.application)).serve()
    made.client.vanish()
    assert not {"user", "session"} & set(views.scope)


def test_in_an_async_test(views: Views, tables: None) -> None:
    """Django's async test client makes a request like an ASGI server's."""

    async def main() -> None:
        async with AsyncWebSocketClient().websocket("/chat/7/?a=1"):
            pass

    asyncio.run(main())
    assert views.scope["type"] == "websocket"
    assert views.scope["query_string"] == b"a=1"
    assert views.scope["extensions"] == {"websocket.http.response": {}}
    assert SCOPE_KEY not in views.scope
