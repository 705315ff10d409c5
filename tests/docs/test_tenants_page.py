"""docs/tenants.md: the settings, and the functions of packages that have none of ours."""

from __future__ import annotations

import sys
import threading
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

import dwebsocket
from dwebsocket import UsageError, accept_websocket, conf
from support.pages import run

if TYPE_CHECKING:
    from collections.abc import Callable

    from dwebsocket.testing import WebSocketClient

    Serve = Callable[..., WebSocketClient]

PAGE = "docs/tenants.md"


def module(monkeypatch: pytest.MonkeyPatch, name: str, **names: Any) -> None:
    """Make a module that can be imported for the rest of the test."""
    made = ModuleType(name)
    vars(made).update(names)
    monkeypatch.setitem(sys.modules, name, made)


def test_settings_for_django_tenants() -> None:
    """Are those that the package has for it."""
    made = run(PAGE, 'WEBSOCKET_CONTEXT = "dwebsocket.tenants.context"')
    assert conf.read("CONTEXT", made["WEBSOCKET_CONTEXT"]) is dwebsocket.tenants.context
    assert conf.read("REALM", made["WEBSOCKET_REALM"]) is dwebsocket.tenants.realm


def test_context_of_another_package(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """The view works for the tenant of its user; afterwards the thread has none."""
    thread = threading.local()
    module(
        monkeypatch,
        "django_multitenant.utils",
        get_current_tenant=lambda: getattr(thread, "tenant", None),
        set_current_tenant=lambda tenant: setattr(thread, "tenant", tenant),
    )
    context = run(PAGE, "from django_multitenant.utils import")["context"]

    def of_user(request: Any) -> Any:
        return context(SimpleNamespace(user=SimpleNamespace(tenant=request.user.pk)))

    module(monkeypatch, "shop.tenancy", context=of_user)

    @accept_websocket
    def sync_view(request: Any) -> None:
        for _ in request.websocket:
            request.websocket.send(thread.tenant)

    @accept_websocket
    async def async_view(request: Any) -> None:
        async for _ in request.websocket:
            await request.websocket.asend(thread.tenant)

    settings = {"WEBSOCKET_CONTEXT": "shop.tenancy.context"}
    client = serve(sync_view, other=async_view, settings=settings)
    for path in ("/", "/other/"):
        with (
            client.websocket(path, headers={"X-User": "anna"}) as anna,
            client.websocket(path, headers={"X-User": "bert"}) as bert,
        ):
            for _ in range(2):
                anna.send("")
                bert.send("")
                assert anna.receive() == "anna"
                assert bert.receive() == "bert"
    assert getattr(thread, "tenant", None) is None


def test_realm_of_another_package(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the request's customer, or the present one, if there is one."""
    present: list[Any] = [None]
    module(monkeypatch, "shop.databases", present_customer=lambda: present[0])
    realm = run(PAGE, "def realm(request):")["realm"]
    assert realm(SimpleNamespace(customer=SimpleNamespace(slug="acme"))) == "acme"
    module(monkeypatch, "shop.realms", realm=realm)
    serve(settings={"WEBSOCKET_REALM": "shop.realms.realm"})
    with pytest.raises(UsageError, match="name it, as realm="):
        dwebsocket.user(7)
    present[0] = SimpleNamespace(slug="acme")
    assert dwebsocket.user(7) == dwebsocket.user(7, realm="acme")
