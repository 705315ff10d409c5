"""Settings that change while the process runs, in each way that projects and tests have."""

from __future__ import annotations

import time
import timeit
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest
from django.conf import UserSettingsHolder, settings
from django.core.exceptions import ImproperlyConfigured
from django.test import override_settings
from echoing import echo
from visit import handshake

from dwebsocket import accept_websocket, conf

if TYPE_CHECKING:
    from visit import Serve

Override = Callable[..., None]

ELSEWHERE = "https://elsewhere.example"
DEFAULT_BYTES = 1024 * 1024


@pytest.fixture(params=[0, 1, 2], ids=["the project's", "one override", "two overrides"])
def _settings(request: pytest.FixtureRequest, override: Override) -> None:
    """The settings that are changed, under so many `override_settings`."""
    for number in range(request.param):
        override(**{f"UNRELATED_{number}": True})
    # All is known already.
    conf.Options.current({})
    conf.Admission.current()


@pytest.fixture
def assign() -> Iterator[Callable[..., None]]:
    """Assign to `settings`, and take it back: `assign(WEBSOCKET_X=…)`."""
    before: dict[str, Any] = {}

    def assign_(**values: Any) -> None:
        for name, value in values.items():
            before.setdefault(name, getattr(settings, name, None))
            setattr(settings, name, value)

    yield assign_
    for name, value in before.items():
        if value is None:
            delattr(settings, name)
        else:
            setattr(settings, name, value)


@pytest.mark.usefixtures("_settings")
class TestChanges:
    """All of them count from the next handshake on."""

    def test_monkeypatch(self) -> None:
        """As pytest's users write it; what it takes back counts, too."""
        with pytest.MonkeyPatch.context() as monkeypatch:
            monkeypatch.setattr(settings, "WEBSOCKET_SEND_BUFFER", 5, raising=False)
            assert conf.get("SEND_BUFFER") == 5
            assert conf.Options.current({}).send_buffer == 5
        assert conf.get("SEND_BUFFER") == DEFAULT_BYTES
        assert conf.Options.current({}).send_buffer == DEFAULT_BYTES

    def test_assignment(self, assign: Callable[..., None]) -> None:
        """Again and again."""
        for size in (5, 6, 5):
            assign(WEBSOCKET_SEND_BUFFER=size, WEBSOCKET_MAX_CONNECTIONS=size)
            assert conf.get("SEND_BUFFER") == size
            assert conf.Options.current({"text_type": str}).send_buffer == size
            assert conf.Admission.current().max_connections == size

    def test_assignment_while_another_setting_goes(self) -> None:
        """The number of all settings stays the same."""
        with pytest.MonkeyPatch.context() as monkeypatch:
            monkeypatch.setattr(settings, "OF_ANOTHER_PACKAGE", 1, raising=False)
            assert conf.get("SEND_BUFFER") == DEFAULT_BYTES
            monkeypatch.delattr(settings, "OF_ANOTHER_PACKAGE")
            monkeypatch.setattr(settings, "WEBSOCKET_SEND_BUFFER", 5, raising=False)
            assert conf.get("SEND_BUFFER") == 5
            monkeypatch.delattr(settings, "WEBSOCKET_SEND_BUFFER")
            monkeypatch.setattr(settings, "OF_ANOTHER_PACKAGE", 1, raising=False)
            assert conf.get("SEND_BUFFER") == DEFAULT_BYTES

    def test_assignment_of_none_where_there_was_nothing(self, assign: Callable[..., None]) -> None:
        """That is not the default."""
        assign(WEBSOCKET_PING_INTERVAL=None)
        assert conf.get("PING_INTERVAL") is None

    def test_assignment_of_an_equal_value(self, assign: Callable[..., None]) -> None:
        """A value that is equal but of a wrong type is noticed, too."""
        assign(WEBSOCKET_ENGINE_THREADS=1)
        assert conf.get("ENGINE_THREADS") == 1
        assign(WEBSOCKET_ENGINE_THREADS=True)
        with pytest.raises(ImproperlyConfigured, match="WEBSOCKET_ENGINE_THREADS must be"):
            conf.get("ENGINE_THREADS")

    def test_list_that_changes(self, assign: Callable[..., None]) -> None:
        """By `append`, by assignment to an element, by `clear`."""
        origins = ["https://a.example"]
        assign(WEBSOCKET_ALLOWED_ORIGINS=origins)
        assert conf.Options.current({}).allowed_origins == ("https://a.example",)
        origins.append("https://b.example")
        assert conf.Options.current({}).allowed_origins == tuple(origins)
        origins[0] = "https://c.example"
        assert conf.Options.current({}).allowed_origins == tuple(origins)
        origins.clear()
        assert conf.Options.current({}).allowed_origins == ()

    def test_dict_and_set_that_change(self, assign: Callable[..., None]) -> None:
        """As lists."""
        compression, subprotocols = {"level": 1}, {"a"}
        assign(WEBSOCKET_COMPRESSION=compression, WEBSOCKET_SUBPROTOCOLS=subprotocols)
        assert conf.get("COMPRESSION").level == 1
        assert conf.get("SUBPROTOCOLS") == ("a",)
        compression["level"] = 9
        subprotocols.remove("a")
        assert conf.get("COMPRESSION").level == 9
        assert conf.get("SUBPROTOCOLS") == ()

    def test_dict_that_changes_deep_within(self, assign: Callable[..., None]) -> None:
        """As `mock.patch.dict` of a backend, and a pattern of its history."""
        entry: dict[str, Any] = {"TIMEOUT": 2, "HISTORY": {"room-*": {"size": 5}}}
        assign(WEBSOCKET_GROUPS={"default": entry})
        assert conf.get("GROUPS")["default"].timeout == 2
        with mock.patch.dict(entry, TIMEOUT=3):
            assert conf.get("GROUPS")["default"].timeout == 3
        assert conf.get("GROUPS")["default"].timeout == 2
        entry["HISTORY"]["room-*"]["size"] = 6
        assert conf.get("GROUPS")["default"].kept("room-1").size == 6

    def test_list_that_becomes_wrong(self, assign: Callable[..., None]) -> None:
        """Is named, until it is right again."""
        origins: list[str] = []
        assign(WEBSOCKET_ALLOWED_ORIGINS=origins)
        assert conf.get("ALLOWED_ORIGINS") == ()
        origins.append("elsewhere.example")
        with pytest.raises(ImproperlyConfigured, match="which is no origin"):
            conf.get("ALLOWED_ORIGINS")
        origins[:] = [ELSEWHERE]
        assert conf.get("ALLOWED_ORIGINS") == (ELSEWHERE,)


def test_setting_that_is_deleted() -> None:
    """Has its default again, also where settings below have another value."""
    with override_settings(WEBSOCKET_SEND_BUFFER=5), override_settings(WEBSOCKET_SEND_BUFFER=6):
        assert conf.get("SEND_BUFFER") == 6
        del settings.WEBSOCKET_SEND_BUFFER
        assert conf.get("SEND_BUFFER") == DEFAULT_BYTES


def test_settings_by_configure(monkeypatch: pytest.MonkeyPatch) -> None:
    """`settings.configure(default_settings)` takes any object for the defaults."""

    class Defaults:
        WEBSOCKET_SEND_BUFFER = 5
        DEBUG = False

    defaults = Defaults()
    monkeypatch.setattr(settings, "_wrapped", UserSettingsHolder(defaults))
    assert conf.get("SEND_BUFFER") == 5
    defaults.WEBSOCKET_SEND_BUFFER = 6
    assert conf.get("SEND_BUFFER") == 6


def test_settings_that_did_not_change_are_not_read_again(override: Override) -> None:
    """The same object is for all connections."""
    override(WEBSOCKET_ALLOWED_ORIGINS=[ELSEWHERE], WEBSOCKET_COMPRESSION={"level": 2})
    assert conf.Options.current({}) is conf.Options.current({})
    assert conf.present()[1] is conf.present()[1]


def test_looking_costs_little(override: Override) -> None:
    """A handshake looks half a dozen times, and takes as long as 50 of these looks at least."""
    override(WEBSOCKET_ALLOWED_ORIGINS=[ELSEWHERE], WEBSOCKET_SUBPROTOCOLS=["a", "b"])
    times = timeit.repeat(
        lambda: conf.get("SEND_BUFFER"), timer=time.thread_time, number=1000, repeat=5
    )
    best = min(times) / 1000
    assert best < 100e-6


def test_handshakes_obey(visit: Serve, override: Override) -> None:
    """From one to the next."""
    origins: list[str] = []
    override(WEBSOCKET_ALLOWED_ORIGINS=origins)
    view = accept_websocket(echo)

    def status() -> int:
        made = visit(view, environ=handshake(HTTP_ORIGIN=ELSEWHERE))
        code: int = made.response.status_code
        return code

    assert status() == 403
    settings.WEBSOCKET_ALLOWED_ORIGINS.append(ELSEWHERE)
    assert status() == 101
    settings.WEBSOCKET_MAX_CONNECTIONS = 0
    assert status() == 503
    settings.WEBSOCKET_MAX_CONNECTIONS = None
    settings.WEBSOCKET_ALLOWED_ORIGINS = ()
    assert status() == 403
