"""docs/tokens.md: who shows a token is let in, is known by a name, and goes when it expires."""

from __future__ import annotations

import sys
import time
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest
from django.conf import settings
from django.core.management import call_command

import dwebsocket
from dwebsocket import accept_websocket, require_websocket
from dwebsocket.operations import listing
from dwebsocket.testing import Clock, WebSocketClient
from support.pages import run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Serve = Callable[..., WebSocketClient]

PAGE = "docs/tokens.md"
MIDDLEWARE = {"MIDDLEWARE": ["devices.middleware.devices"]}


@pytest.fixture(autouse=True)
def modules(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The modules of the page: `devices.tokens` and `devices.middleware`."""
    found: dict[str, Any] = {}
    monkeypatch.setitem(sys.modules, "devices", ModuleType("devices"))
    for name in ("tokens", "middleware"):
        made = ModuleType(f"devices.{name}")
        vars(made).update(run(PAGE, f"# devices/{name}.py"))
        monkeypatch.setitem(sys.modules, f"devices.{name}", made)
        found |= vars(made)
    return found


def ways(token: str) -> list[dict[str, Any]]:
    """Give the three places of a token, as arguments of the test client."""
    return [
        {"path": "/", "headers": {"Authorization": f"Bearer {token}"}},
        {"path": "/", "subprotocols": ["feed", f"bearer.{token}"]},
        {"path": f"/?token={token}"},
    ]


@pytest.fixture
def token_table(
    anna: Any, monkeypatch: pytest.MonkeyPatch, override: Callable[..., None]
) -> Iterator[None]:
    """The app of Django REST framework that keeps tokens, with its table."""
    installed = [*settings.INSTALLED_APPS, "rest_framework.authtoken"]
    # Its module looks at the setting as it is imported, which `override_settings` does too early.
    monkeypatch.setattr(settings, "INSTALLED_APPS", installed)
    override(INSTALLED_APPS=installed)
    call_command("migrate", "authtoken", verbosity=0)
    yield
    from rest_framework.authtoken.models import Token

    Token.objects.all().delete()


@pytest.mark.usefixtures("token_table")
def test_tokens_of_django_rest_framework(serve: Serve, anna: Any) -> None:
    """In each place; without a valid one the answer is 401; a token that is deleted closes."""
    from django.db.models.signals import post_delete
    from rest_framework.authtoken.models import Token

    token = Token.objects.create(user=anna)
    client = serve(run(PAGE, "class Bearer(TokenAuthentication)")["Feed"].as_view())
    for way in ways(token.key):
        with client.websocket(**way) as websocket:
            assert websocket.subprotocol == ("feed" if "subprotocols" in way else None)
            websocket.send("hello")
            assert websocket.receive() == "anna: hello"
    for way in [*ways("nonsense"), {"path": "/"}]:
        with client.websocket(**way) as websocket:
            assert websocket.response.status_code == 401
    receiver = run(PAGE, "@receiver(post_delete")["close"]
    try:
        with client.websocket(**ways(token.key)[0]) as websocket:
            token.delete()
            assert (websocket.wait_closed(), websocket.close_reason) == (4401, "token withdrawn")
    finally:
        assert post_delete.disconnect(receiver, sender=Token)


@pytest.mark.usefixtures("token_table")
def test_user_of_a_token_is_looked_up_again(serve: Serve, anna: Any) -> None:
    """As that of a session: one who is deactivated has to go."""
    from rest_framework.authtoken.models import Token

    token = Token.objects.create(user=anna)
    client = serve(run(PAGE, "class Bearer(TokenAuthentication)")["Feed"].as_view())
    with client.websocket(**ways(token.key)[0]) as websocket:
        anna.is_active = False
        anna.save()
        assert (websocket.wait_closed(), websocket.close_reason) == (4401, "deactivated")


@pytest.fixture
def jwt(anna: Any, override: Callable[..., None]) -> Callable[..., str]:
    """Give a function that makes a token of some seconds: `jwt(300)`."""
    pytest.importorskip("rest_framework_simplejwt", reason="pip install -r tests/requirements.txt")
    # Long enough for its algorithm.
    override(SECRET_KEY="for tests only, and of a length that JWT wants")
    from datetime import timedelta

    from rest_framework_simplejwt.tokens import AccessToken

    def make(seconds: float, user: Any = anna) -> str:
        token = AccessToken.for_user(user)
        token.set_exp(lifetime=timedelta(seconds=seconds))
        return str(token)

    return make


class TestJwt:
    """Expiry and refresh."""

    @pytest.fixture
    def client(self, serve: Serve, jwt: Any) -> WebSocketClient:
        """A client of the page's view."""
        return serve(run(PAGE, "class BearerJWT(JWTAuthentication)")["Feed"].as_view())

    def test_lets_in(self, client: WebSocketClient, jwt: Any, anna: Any) -> None:
        """In each place, until it has expired."""
        for way in ways(jwt(300)):
            with client.websocket(**way) as websocket:
                websocket.send_json("hello")
                assert websocket.receive_json() == {"you": anna.pk, "said": "hello"}
        for way in [*ways(jwt(-1)), {"path": "/"}]:
            with client.websocket(**way) as websocket:
                assert websocket.response.status_code == 401

    def test_expiry_closes_in_time(self, client: WebSocketClient, jwt: Any) -> None:
        """Not before, and not much later."""
        with client.websocket(**ways(jwt(300))[0]) as websocket:
            Clock().advance(295)
            websocket.send_json("hello")
            assert websocket.receive_json()["said"] == "hello"
            Clock().advance(6)
            assert (websocket.wait_closed(), websocket.close_reason) == (4401, "token expired")

    def test_refresh_keeps_it_open(self, client: WebSocketClient, jwt: Any) -> None:
        """Until the new token expires."""
        with client.websocket(**ways(jwt(300))[0]) as websocket:
            websocket.send_json({"token": jwt(600)})
            websocket.send_json("hello")
            websocket.receive_json()
            Clock().advance(400)
            websocket.send_json("hello")
            assert websocket.receive_json()["said"] == "hello"
            Clock().advance(300)
            assert websocket.wait_closed() == 4401

    @pytest.mark.parametrize("reason", ["invalid token", "another user"])
    def test_refresh_that_is_none(self, client: WebSocketClient, jwt: Any, reason: str) -> None:
        """An expired token, and that of another user, end the connection."""
        from django.contrib.auth.models import User

        fresh = jwt(-1) if reason == "invalid token" else jwt(300, User(pk=10**6))
        with client.websocket(**ways(jwt(300))[0]) as websocket:
            websocket.send_json({"token": fresh})
            assert (websocket.wait_closed(), websocket.close_reason) == (4401, reason)


class TestDevices:
    """A name without a row."""

    @pytest.fixture
    def client(self, serve: Serve) -> WebSocketClient:
        """A client of a sync view and of an async one."""

        @accept_websocket(text_type=str)
        def sync_view(request: Any) -> None:
            for message in request.websocket:
                request.websocket.send(f"{request.user.pk}: {message}")

        @accept_websocket(text_type=str)
        async def async_view(request: Any) -> None:
            async for message in request.websocket:
                await request.websocket.asend(f"{request.user.pk}: {message}")

        views = {"devices/sync": sync_view, "devices/async": async_view}
        return serve(settings=MIDDLEWARE, **views)

    @pytest.mark.parametrize("kind", ["sync", "async"])
    def test_name(self, client: WebSocketClient, modules: Any, kind: str) -> None:
        """The view and the admin's page have it; it is an address, and can be closed."""
        path, key = f"/devices/{kind}/", "device-pump-7"
        made = run(PAGE, "def restart(name)")
        token = modules["signer"].sign("pump-7")
        with client.websocket(path, headers={"Authorization": f"Bearer {token}"}) as websocket:
            websocket.send("hello")
            assert websocket.receive() == f"{key}: hello"
            (row,) = listing.rows(listing.Query(user=key))["rows"]
            assert row["user"] == key
            made["restart"]("pump-7")
            assert websocket.receive_json() == {"do": "restart"}
            assert made["ban"]("pump-7") == 1
            assert (websocket.wait_closed(), websocket.close_reason) == (4401, "token withdrawn")

    def test_without_a_valid_token(self, client: WebSocketClient, modules: Any) -> None:
        """401, also when it is too old."""
        token = modules["signer"].sign("pump-7")
        for path in ("/devices/sync/", f"/devices/sync/?token={token}x"):
            with client.websocket(path) as websocket:
                assert websocket.response.status_code == 401

    def test_limit_and_log_know_the_name(
        self,
        client: WebSocketClient,
        modules: Any,
        override: Callable[..., None],
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        """The second connection of a device is refused; that of another one is not."""
        override(WEBSOCKET_MAX_CONNECTIONS_PER_USER=1)
        caplog.set_level("INFO", logger="dwebsocket")
        pump, valve = (modules["signer"].sign(name) for name in ("pump-7", "valve-1"))
        with client.websocket(f"/devices/sync/?token={pump}") as first:
            with client.websocket(f"/devices/sync/?token={pump}") as second:
                assert second.response.status_code == 429
            with client.websocket(f"/devices/sync/?token={valve}") as other:
                assert other.response.status_code == 101
            dwebsocket.close_user("device-pump-7")
            assert first.wait_closed() == 4401
        records: list[Any] = [each for each in caplog.records if hasattr(each, "event")]
        refused, ended = (
            [each for each in records if each.event == f"websocket.{event}"]
            for event in ("refused", "signed_out")
        )
        assert [each.reason.endswith("by user device-pump-7.") for each in refused] == [True]
        assert [each.user for each in ended] == ["device-pump-7"]


def test_ninja(serve: Serve, modules: Any) -> None:
    """An operation for devices, in each place of the token."""
    api = run(PAGE, "from ninja import NinjaAPI")["api"]
    (patterns, *_) = api.urls
    operation = next(each for each in patterns if str(each.pattern) == "feed")
    client = serve(operation.callback)
    for way in ways(modules["signer"].sign("pump-7")):
        with client.websocket(**way) as websocket:
            websocket.send("hello")
            assert websocket.receive() == "device-pump-7: hello"
    with client.websocket("/") as websocket:
        assert websocket.response.status_code == 401


@pytest.mark.usefixtures("jwt")
def test_expiry_of_an_async_view(serve: Serve) -> None:
    """It has the same `until_expiry`."""
    until_expiry = run(PAGE, "class BearerJWT(JWTAuthentication)")["until_expiry"]

    @require_websocket(text_type=str)
    async def view(request: Any) -> None:
        until_expiry(request.websocket, {"exp": time.time() + 300})
        async for message in request.websocket:
            await request.websocket.asend(message)

    with serve(view).websocket("/") as websocket:
        websocket.send("hello")
        assert websocket.receive() == "hello"
        Clock().advance(295)
        websocket.send("still here")
        assert websocket.receive() == "still here"
        Clock().advance(6)
        assert (websocket.wait_closed(), websocket.close_reason) == (4401, "token expired")


def test_settings() -> None:
    """The apps that the examples use; the middleware is behind Django's own."""
    own = "django.contrib.auth.middleware.AuthenticationMiddleware"
    made = run(PAGE, "# mysite/settings.py", INSTALLED_APPS=[], MIDDLEWARE=[own])
    assert made["MIDDLEWARE"] == [own, *MIDDLEWARE["MIDDLEWARE"]]
    apps = ["rest_framework", "rest_framework.authtoken"]
    assert made["INSTALLED_APPS"] == ["dwebsocket", "devices", *apps]
