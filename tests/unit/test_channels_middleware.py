"""Channels' own middleware, and its sessions and users, around consumers that are views."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib import import_module
from typing import TYPE_CHECKING, Any

import pytest
from channels.auth import get_user, login, logout
from channels.db import database_sync_to_async
from channels.generic.websocket import (
    AsyncJsonWebsocketConsumer,
    AsyncWebsocketConsumer,
    WebsocketConsumer,
)
from channels.security.websocket import OriginValidator
from channels.sessions import SessionMiddlewareStack
from django.conf import settings
from django.contrib.auth.models import User
from django.urls import path
from peer import all_given_back

from dwebsocket import asgi_websocket
from dwebsocket.testing import WebSocketClient

if TYPE_CHECKING:
    from django.contrib.sessions.backends.base import SessionBase

Serve = Callable[..., WebSocketClient]
SESSIONS = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
]


@pytest.fixture
def serve(override: Callable[..., None]) -> Iterator[Serve]:
    """Serve an application at /one/ and /two/, behind middleware of Django's; give a client."""

    def serve_(application: Any, middleware: list[str] = SESSIONS, **options: Any) -> Any:
        view = asgi_websocket(application, **options)
        override(ROOT_URLCONF=(path("one/", view), path("two/", view)), MIDDLEWARE=middleware)
        return WebSocketClient()

    with all_given_back():
        yield serve_


def stored(key: str) -> SessionBase:
    """Give a session as it is stored."""
    session: SessionBase = import_module(settings.SESSION_ENGINE).SessionStore(key)
    return session


ALLOWED = "http://allowed-domain.com"


@pytest.mark.parametrize(
    ("allowed", "origin", "is_let_in"),
    [
        (["allowed-domain.com"], ALLOWED, True),
        (["allowed-domain.com"], "http://bad-domain.com", False),
        # No pattern of Channels: it matches nothing.
        (["*.allowed-domain.com"], ALLOWED, False),
        ([".allowed-domain.com"], "http://www.allowed-domain.com", True),
        ([".allowed-domain.com"], "", False),
        ([".allowed-domain.com"], "something-invalid", False),
        ([ALLOWED], ALLOWED, True),
        ([ALLOWED], "https://bad-domain.com:443", False),
        (["*"], None, True),
        ([], None, False),
    ],
)
def test_origin_validator(
    serve: Serve, allowed: list[str], origin: str | None, is_let_in: bool
) -> None:
    """Lets the same Origins in as ever, where `allowed_origins` leaves the choice to it."""
    application = OriginValidator(AsyncWebsocketConsumer.as_asgi(), allowed)
    client = serve(application, allowed_origins=["*"])
    headers = {} if origin is None else {"origin": origin}
    with client.websocket("/one/", headers=headers) as ws:
        assert ws.response.status_code == (101 if is_let_in else 403)


def test_scopes_of_two_consumers(serve: Serve, tables: None) -> None:
    """Each has its own, behind one middleware, whichever of them is asked first."""

    class Path(WebsocketConsumer):
        def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
            self.send(text_data=self.scope["path"])

    client = serve(SessionMiddlewareStack(Path.as_asgi()))
    with client.websocket("/one/") as one, client.websocket("/two/") as two:
        for ws, where in ((two, "/two/"), (one, "/one/"), (two, "/two/")):
            ws.send("which?")
            assert ws.receive() == where


class Account(AsyncJsonWebsocketConsumer):
    """Signs users in and out, as Channels' documentation has it."""

    async def receive_json(self, content: Any, **kwargs: Any) -> None:
        if "login" in content:
            user = None
            if content["login"] is not None:
                user = await User.objects.aget(username=content["login"])
            await login(self.scope, user)
        if "logout" in content:
            await logout(self.scope)
        if "color" in content:
            self.scope["session"]["color"] = content["color"]
        await database_sync_to_async(self.scope["session"].save)()
        user = await get_user(self.scope)
        await self.send_json([self.scope["session"].session_key, str(user)])


@pytest.fixture
def bob(tables: None) -> Iterator[User]:
    """Be another user."""
    found = User.objects.create(username="bob")
    yield found
    User.objects.filter(username="bob").delete()


BEHIND = pytest.mark.parametrize(
    ("application", "middleware"),
    [
        (Account.as_asgi(), SESSIONS),
        (SessionMiddlewareStack(Account.as_asgi()), SESSIONS),
        (SessionMiddlewareStack(Account.as_asgi()), []),
    ],
    ids=["Django's sessions", "both sessions", "Channels' sessions"],
)


@BEHIND
class TestAccounts:
    """`login` and `logout` of Channels, whoever has put the session into the scope."""

    def test_login(self, serve: Serve, anna: User, application: Any, middleware: Any) -> None:
        """The session is stored; the next WebSocket with its cookie has the user."""
        client = serve(application, middleware)
        with client.websocket("/one/") as ws:
            ws.send_json({"login": "anna"})
            key, user = ws.receive_json()
        assert user == "anna"
        assert stored(key)["_auth_user_id"] == str(anna.pk)
        client.cookies[settings.SESSION_COOKIE_NAME] = key
        with client.websocket("/two/") as ws:
            ws.send_json({})
            assert ws.receive_json() == [key, "anna"]

    def test_other_user(
        self, serve: Serve, anna: User, bob: User, application: Any, middleware: Any
    ) -> None:
        """Gets a new session, without what the first one's had."""
        client = serve(application, middleware)
        with client.websocket("/one/") as ws:
            ws.send_json({"login": "anna", "color": "blue"})
            first, _ = ws.receive_json()
            assert stored(first)["color"] == "blue"
            ws.send_json({"login": "bob"})
            second, user = ws.receive_json()
        assert user == "bob"
        assert second != first
        assert "color" not in stored(second)

    def test_session(self, serve: Serve, tables: None, application: Any, middleware: Any) -> None:
        """A value that a consumer has put there is stored."""
        client = serve(application, middleware)
        with client.websocket("/one/") as ws:
            ws.send_json({"color": "blue"})
            key, user = ws.receive_json()
        assert (stored(key)["color"], user) == ("blue", "AnonymousUser")

    def test_logout(self, serve: Serve, anna: User, application: Any, middleware: Any) -> None:
        """The session is emptied."""
        client = serve(application, middleware)
        with client.websocket("/one/") as ws:
            ws.send_json({"login": "anna"})
            first, _ = ws.receive_json()
            ws.send_json({"logout": True})
            second, user = ws.receive_json()
        assert user == "AnonymousUser"
        assert second != first
        assert "_auth_user_id" not in stored(first)

    def test_logout_of_nobody(
        self, serve: Serve, tables: None, application: Any, middleware: Any
    ) -> None:
        """Is no error."""
        client = serve(application, middleware)
        with client.websocket("/one/") as ws:
            ws.send_json({"logout": True})
            assert ws.receive_json()[1] == "AnonymousUser"


def test_logout_of_those_who_came_as_users(
    serve: Serve, anna: User, override: Callable[..., None]
) -> None:
    """
    Closes the session's WebSockets, as any sign-out does: that of the consumer itself, too.

    Where sessions are rows. Channels does not say which session a signal is about: elsewhere
    `WEBSOCKET_AUTH_RECHECK` finds it.
    """
    override(SESSION_ENGINE="django.contrib.sessions.backends.db")
    client = serve(Account.as_asgi())
    client.force_login(anna)
    with client.websocket("/one/") as ws, client.websocket("/two/") as other:
        ws.send_json({"logout": True})
        assert (ws.wait_closed(), other.wait_closed()) == (4401, 4401)


def test_login_of_the_scopes_user(serve: Serve, anna: User) -> None:
    """Without a user to log in it is that of the scope."""

    class Again(Account):
        async def connect(self) -> None:
            self.scope["user"] = await User.objects.aget(username="anna")
            await self.accept()

    with serve(Again.as_asgi()).websocket("/one/") as ws:
        ws.send_json({"login": None})
        assert ws.receive_json()[1] == "anna"


@pytest.mark.parametrize(
    ("application", "content", "reason"),
    [
        (Account.as_asgi(), {"login": "anna"}, "Cannot find session in scope"),
        (Account.as_asgi(), {"logout": True}, "cannot find session in scope"),
        (SessionMiddlewareStack(Account.as_asgi()), {"login": None}, "User must be passed"),
    ],
    ids=["login", "logout", "nobody"],
)
def test_without_session_or_user(
    serve: Serve, anna: User, application: Any, content: Any, reason: str
) -> None:
    """Without Django's middleware the scope has none: Channels' own error is the view's."""
    client = serve(application, [])
    with pytest.raises(ValueError, match=reason):  # noqa: PT012
        with client.websocket("/one/") as ws:
            ws.send_json(content)
            ws.wait_closed()
