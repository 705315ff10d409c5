"""Views where a version of Django or asgiref lacks a private part."""

from __future__ import annotations

import asyncio
import functools
import importlib
import io
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from asgiref import local
from asgiref.sync import AsyncToSync, SyncToAsync, sync_to_async
from django.conf import LazySettings, settings
from django.core.handlers.asgi import ASGIHandler
from django.core.handlers.wsgi import LimitedStream
from django.db import connections
from django.http import HttpResponse
from django.test import RequestFactory, override_settings
from django.test.client import ClientHandler
from django.utils import autoreload, http
from django.utils.functional import SimpleLazyObject

from dwebsocket import conf
from dwebsocket.compat import asgiref as asgiref_parts
from dwebsocket.compat import django as parts
from dwebsocket.compat import django_asgi, django_test, rest_framework
from dwebsocket.compat.missing import MissingPart

if TYPE_CHECKING:
    from collections.abc import Callable


class TestSettings:
    """The object behind the settings."""

    def test_is_another_one_when_they_are_exchanged(self) -> None:
        """And the same one as long as they are not."""
        before = parts.settings_source()
        with override_settings(WEBSOCKET_MAX_CONNECTIONS=7):
            assert parts.settings_source() is not before
        assert parts.settings_source() is before

    def test_without_it_nothing_is_remembered(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Each change is seen, though slowly."""
        own = settings._wrapped
        monkeypatch.setattr(parts, "settings", _Elsewhere(own))
        assert parts.settings_source() is not parts.settings_source()
        for limit in (7, 8):
            monkeypatch.setattr(own, "WEBSOCKET_MAX_CONNECTIONS", limit, raising=False)
            assert conf.get("MAX_CONNECTIONS") == limit

    def test_are_read_when_they_have_not_been(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The first access reads them; this process has none to read."""
        fresh = LazySettings()
        monkeypatch.setattr(parts, "settings", fresh)
        monkeypatch.delenv("DJANGO_SETTINGS_MODULE", raising=False)
        with pytest.raises(conf.ImproperlyConfigured, match="settings are not configured"):
            parts.settings_source()

    def test_changed_files(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Without the signal no receiver is called, which is no error."""
        told: list[object] = []

        def receiver(*, file_path: object, **_: object) -> None:
            told.append(file_path)

        parts.on_file_changed(receiver)
        autoreload.file_changed.send(sender=None, file_path=Path("settings.py"))
        monkeypatch.delattr(autoreload, "file_changed")
        parts.on_file_changed(receiver)
        assert told == [Path("settings.py")]


class TestChecks:
    """The run of system checks that imports the package."""

    @pytest.mark.parametrize("kept", ["pass", "checks, tags = (), None"])
    def test_run_that_keeps_its_checks_elsewhere(self, kept: str) -> None:
        """It goes on without ours."""
        names = {"__name__": "django.core.checks.registry", "join": parts.join_run}
        exec(f"def run_checks():\n {kept}\n join(print, deploy=False)", names)
        names["run_checks"]()

    def test_none_runs(self) -> None:
        """Then nothing happens."""
        parts.join_run(print, deploy=True)


class _Elsewhere:
    """Settings that have their values somewhere else."""

    def __init__(self, source: object) -> None:
        self.source = source

    def __getattr__(self, name: str) -> Any:
        return getattr(self.source, name)


class TestRequests:
    """Requests and responses."""

    @pytest.mark.parametrize("is_there", [True, False])
    def test_headers(self, is_there: bool) -> None:
        """The same with and without Django's own dictionary."""
        response: Any = HttpResponse(headers={"X-Own": "1"})
        if not is_there:
            response = SimpleNamespace(headers=None, items=response.items)
        assert dict(parts.headers_of(response))["X-Own"] == "1"

    def test_body(self) -> None:
        """A request without a stream keeps its body."""
        of_wsgi = RequestFactory().post("/", {})
        parts.forget_body(of_wsgi, "another")
        assert of_wsgi._stream == "another"  # type: ignore[attr-defined]
        without: Any = SimpleNamespace(stream=1)
        parts.forget_body(without, "another")
        assert vars(without) == {"stream": 1}

    def test_user_of_the_session(self) -> None:
        """Only where Django's middleware is known to look the user up."""

        def look_up() -> None:
            """Stands for Django's."""

        assert not parts.is_looked_up_in_session(SimpleLazyObject(look_up))
        look_up.__module__ = "django.contrib.auth.middleware"
        found = SimpleLazyObject(look_up)
        assert parts.is_looked_up_in_session(found)
        del found.__dict__["_setupfunc"]
        assert not parts.is_looked_up_in_session(found)
        assert not parts.is_looked_up_in_session(object())

    def test_parts_of_a_route(self) -> None:
        """Those that a version of Django does not have are left out."""
        assert parts.parts_of_route(SimpleNamespace(route="a", view_name="b", other="c")) == (
            "route",
            "view_name",
        )

    def test_limited_reader(self) -> None:
        """One of both, whatever the version; none of a body of another kind."""
        reader = io.BufferedReader(io.BytesIO())  # type: ignore[arg-type]
        assert reader in parts.limited_readers(LimitedStream(reader, 0))  # type: ignore[arg-type]
        assert parts.limited_readers(object()) == (None, None)

    def test_client_of_tests(self) -> None:
        """It is known by its bodies."""
        environ = RequestFactory().get("/").META
        assert parts.is_from_test_client(environ)
        assert not parts.is_from_test_client({"wsgi.input": object()})

    def test_request_inside_of_another(self) -> None:
        """None of one that has none."""
        assert rest_framework.wrapped_request(SimpleNamespace(_request=1)) == 1
        assert rest_framework.wrapped_request(object()) is None


class TestHosts:
    """Hosts and domains, the same by Django's functions and without them."""

    @pytest.fixture(autouse=True, params=["as it is", "missing"])
    def _parts(self, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
        if request.param == "missing":
            monkeypatch.delattr(http, "is_same_domain")
            monkeypatch.delattr(parts.http_request, "split_domain_port")
            monkeypatch.delattr(parts.http_request, "validate_host")

    @pytest.mark.parametrize(
        ("host", "pattern", "is_same"),
        [
            ("example.com", "example.com", True),
            ("example.com", "EXAMPLE.com", True),
            ("example.com", ".example.com", True),
            ("a.example.com", ".example.com", True),
            ("evilexample.com", ".example.com", False),
            ("a.example.com", "example.com", False),
            ("example.com", "", False),
        ],
    )
    def test_same_domain(self, host: str, pattern: str, is_same: bool) -> None:
        """A leading dot is for all that is below, too."""
        assert parts.is_same_domain(host, pattern) is is_same

    @pytest.mark.parametrize(
        ("netloc", "host"),
        [("Example.com:80", "example.com"), ("example.com", "example.com"), ("[::1]:80", "[::1]")],
    )
    def test_host(self, netloc: str, host: str) -> None:
        """Without its port, in small letters."""
        assert parts.host_of(netloc) == host

    @pytest.mark.parametrize(
        ("allowed", "is_allowed"), [(["*"], True), ([".example.com"], True), (["b.com"], False)]
    )
    def test_allowed(self, allowed: list[str], is_allowed: bool) -> None:
        """As `ALLOWED_HOSTS` means it."""
        assert parts.is_host_allowed("a.example.com", allowed) is is_allowed


class TestDatabases:
    """The connections of a thread."""

    @pytest.mark.parametrize("missing", ["nothing", "_storage", "_connections"])
    def test_of_a_fresh_thread(self, monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
        """There are none; where that cannot be seen there may be some."""
        if missing == "_storage":
            monkeypatch.setattr(connections, "_connections", SimpleNamespace())
        elif missing == "_connections":
            monkeypatch.delattr(connections, "_connections")
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(parts.has_connections).result(10) is (missing != "nothing")

    def test_store(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The test kit puts its own there, or says that it cannot."""
        store = django_test.connection_store()
        assert store is connections._connections  # type: ignore[attr-defined]
        monkeypatch.delattr(connections, "_connections")
        for call in (django_test.connection_store, lambda: django_test.set_connection_store(store)):
            with pytest.raises(MissingPart, match=r"_connections, which Django \d"):
                call()

    @pytest.mark.parametrize(
        ("values", "is_own"),
        [
            ({"in_atomic_block": True, "vendor": "postgresql"}, True),
            ({"vendor": "sqlite", "is_in_memory_db": lambda: True}, True),
            ({"vendor": "sqlite", "is_in_memory_db": lambda: False}, False),
            # Django's function is missing.
            ({"vendor": "sqlite"}, True),
            ({"vendor": "postgresql"}, False),
        ],
    )
    def test_what_only_the_test_sees(self, values: dict[str, Any], is_own: bool) -> None:
        """A test's database in SQLite usually is one in memory."""
        connect = RequestFactory().get  # any method
        made: Any = SimpleNamespace(**{"in_atomic_block": False, "connect": connect, **values})
        assert django_test.is_the_tests_own(made) is is_own


@pytest.mark.parametrize(
    ("module", "owner", "name"),
    [
        (django_asgi, ASGIHandler, "handle"),
        (django_asgi, ASGIHandler, "send_response"),
        (django_test, ClientHandler, "get_response"),
    ],
)
def test_overridden_method_is_missing(
    monkeypatch: pytest.MonkeyPatch, module: Any, owner: type, name: str
) -> None:
    """Said when the module is imported, and not by requests that hang."""
    for cls in owner.__mro__:
        if name in vars(cls):
            monkeypatch.delattr(cls, name)
    with pytest.raises(MissingPart, match=rf"{name}, which Django \d"):
        importlib.reload(module)


class TestAsgiref:
    """Where `sync_to_async` finds its thread."""

    @pytest.mark.parametrize("missing", [None, "thread_sensitive_context", "deadlock_context"])
    def test_leave_request(self, monkeypatch: pytest.MonkeyPatch, missing: str | None) -> None:
        """A missing part needs no resetting; the rest is reset all the same."""
        kept = {name: getattr(SyncToAsync, name) for name in CONTEXTS}
        if missing is not None:
            monkeypatch.delattr(SyncToAsync, missing)

        async def view() -> list[object]:
            kept["thread_sensitive_context"].set("the request's")
            kept["deadlock_context"].set(True)
            AsyncToSync.executors.current = "the request's"
            asgiref_parts.leave_request()
            assert not hasattr(AsyncToSync.executors, "current")
            return [kept[name].get() for name in CONTEXTS if name != missing]

        outside = [CONTEXTS[name] for name in CONTEXTS if name != missing]
        assert asyncio.run(view()) == outside

    def test_leave_request_without_executors(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A version that keeps them elsewhere."""
        monkeypatch.delattr(AsyncToSync, "executors")
        asyncio.run(_call(asgiref_parts.leave_request))

    def test_executor_of_a_loop(self) -> None:
        """The ORM runs there."""
        with ThreadPoolExecutor(1, "own") as pool:

            async def name() -> str:
                asgiref_parts.use_executor(asyncio.get_running_loop(), pool)
                try:
                    return await sync_to_async(_thread_name)()
                finally:
                    del AsyncToSync.loop_thread_executors[asyncio.get_running_loop()]

            assert asyncio.run(name()).startswith("own")

    def test_executor_of_a_loop_is_not_asked_for(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Then the loop is left as it is."""
        monkeypatch.delattr(AsyncToSync, "loop_thread_executors")
        with ThreadPoolExecutor(1) as pool:
            asgiref_parts.use_executor(object(), pool)  # type: ignore[arg-type]

    def test_call_that_is_none_of_asgirefs_is_wrapped_as_a_whole(self) -> None:
        """There is no context to be within."""

        def wrap(call: Callable[..., int]) -> Callable[..., int]:
            return lambda: call() + 1

        for call in (lambda: 1, functools.partial(int, "1")):
            assert asgiref_parts.wrapped_in_context(call, wrap)() == 2

    def test_storage(self) -> None:
        """Both or none: one without the other is of no use."""
        assert (asgiref_parts.Storage is None) == (asgiref_parts.rehome is None)
        assert asgiref_parts.Storage is getattr(local, "_Storage", None)


CONTEXTS = {"thread_sensitive_context": None, "deadlock_context": False}


async def _call(function: Callable[[], object]) -> None:
    function()


def _thread_name() -> str:
    return threading.current_thread().name
