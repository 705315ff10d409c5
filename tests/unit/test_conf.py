"""Every setting: its default, the values that it takes, and the errors for others."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import pytest
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.test import override_settings

from dwebsocket import conf, tenants
from dwebsocket.conf import memory
from dwebsocket.conf.group_settings import BackendSettings, PresenceLimits

Override = Callable[..., None]

MIB = 1024 * 1024

DEFAULTS = {
    "ACCEPT_ALL": False,
    "FACTORY_CLASS": None,
    "TEXT_TYPE": bytes,
    "ALLOWED_ORIGINS": (),
    "REQUIRE_ORIGIN": False,
    "SUBPROTOCOLS": (),
    "FALLBACK": False,
    "COMPRESSION": conf.Compression(),
    "MAX_MESSAGE_SIZE": 16 * MIB,
    "MAX_FRAME_SIZE": None,
    "MAX_FRAGMENTS": 80_000,
    "RECEIVE_BUFFER": MIB,
    "MAX_BUFFERED": memory.limit() // 8,
    "MAX_CONNECTIONS": 10_000,
    "MAX_CONNECTIONS_PER_ADDRESS": None,
    "MAX_CONNECTIONS_PER_USER": 100,
    "AUTH_RECHECK": 300.0,
    "MAX_MESSAGES_PER_SECOND": None,
    "MAX_BYTES_PER_SECOND": None,
    "RATE_TIMEOUT": 10.0,
    "PING_INTERVAL": 25.0,
    "PING_TIMEOUT": 20.0,
    "SEND_BUFFER": MIB,
    "SEND_TIMEOUT": 10.0,
    "MESSAGE_TIMEOUT": 60.0,
    "CLOSE_TIMEOUT": 2.0,
    "MAX_HANDSHAKE_SIZE": 48 * 1024,
    "HANDSHAKE_TIMEOUT": 30.0,
    "DRAIN": 0.0,
    "HANDOVER": True,
    "CONTEXT": None,
    "REALM": None,
    "GROUPS": {"default": BackendSettings()},
    "MAX_HISTORY": 64 * MIB,
    "MAX_ROOMS": 100,
    "ROOMS_RATE": 20.0,
    "ROOMS_BURST": 60,
    "MAX_ROOM_INFO": 1024,
    "MAX_ROOM_EVENT": 64 * 1024,
    "MAX_ROOM_MEMBERS": 100,
    "OPERATIONS": None,
    "METRICS_TOKEN": "",
    "ENGINE_THREADS": 1,
    "HANDLER_THREADS": 16,
    "CHANNELS_THREADS": 1,
    "THREAD_STACK_SIZE": 4 * MIB,
}

SECONDS = [(0.001, 0.001), (1, 1.0), (2.5, 2.5), (10**8, 1e8)]
BAD_SECONDS = [0, -1, 10**9, math.inf, math.nan, True, "5", [], 1j]
SIZES = [(1, 1), (10**12, 10**12)]
BAD_SIZES = [0, -1, 1.5, True, "1", None, 2**62, math.inf]

COUNTS = [(None, None), (0, 0), (5, 5)]
RATES = [(None, None), (0.5, 0.5), (5, 5.0), (10**9, 1e9)]

GOOD: dict[str, list[tuple[Any, Any]]] = {
    "ACCEPT_ALL": [(True, True), (False, False)],
    "FACTORY_CLASS": [(None, None), ("a.B", "a.B")],
    "TEXT_TYPE": [("bytes", bytes), ("str", str), (bytes, bytes), (str, str)],
    "ALLOWED_ORIGINS": [
        ([], ()),
        (["https://a.example"], ("https://a.example",)),
        (("HTTPS://A.example:8443", "*"), ("https://a.example:8443", "*")),
        (["https://*.a.example", "null"], ("https://*.a.example", "null")),
    ],
    "REQUIRE_ORIGIN": [(True, True), (False, False)],
    "SUBPROTOCOLS": [([], ()), (["chat.v2", "chat"], ("chat.v2", "chat")), ({"a"}, ("a",))],
    "FALLBACK": [(True, True), (False, False)],
    "COMPRESSION": [
        (True, conf.Compression()),
        (False, None),
        ({}, conf.Compression()),
        ({"threshold": 0, "level": 9}, conf.Compression(threshold=0, level=9)),
        (
            {
                "server_no_context_takeover": False,
                "client_no_context_takeover": False,
                "server_max_window_bits": 9,
                "client_max_window_bits": 15,
            },
            conf.Compression(256, 3, False, False, 9, 15),
        ),
    ],
    "MAX_MESSAGE_SIZE": SIZES,
    "MAX_FRAME_SIZE": [*SIZES, (None, None)],
    "MAX_FRAGMENTS": [(1, 1), (2**32 - 1, 2**32 - 1)],
    "RECEIVE_BUFFER": SIZES,
    "MAX_BUFFERED": [*SIZES, (None, None), (0.5, memory.limit() // 2), (1e-30, 1)],
    "MAX_CONNECTIONS": COUNTS,
    "MAX_CONNECTIONS_PER_ADDRESS": COUNTS,
    "MAX_CONNECTIONS_PER_USER": COUNTS,
    "AUTH_RECHECK": [*SECONDS, (0, 0.0)],
    "MAX_MESSAGES_PER_SECOND": RATES,
    "MAX_BYTES_PER_SECOND": RATES,
    "RATE_TIMEOUT": [*SECONDS, (None, None)],
    "PING_INTERVAL": [*SECONDS, (None, None)],
    "PING_TIMEOUT": [*SECONDS, (None, None)],
    "SEND_BUFFER": SIZES,
    "SEND_TIMEOUT": [*SECONDS, (None, None)],
    "MESSAGE_TIMEOUT": [*SECONDS, (None, None)],
    "CLOSE_TIMEOUT": SECONDS,
    "MAX_HANDSHAKE_SIZE": [*SIZES, (None, None)],
    "HANDSHAKE_TIMEOUT": [*SECONDS, (None, None)],
    "DRAIN": [*SECONDS, (0, 0.0)],
    "HANDOVER": [(True, True), (False, False)],
    "CONTEXT": [(None, None), ("dwebsocket.tenants.context", tenants.context)],
    "REALM": [(None, None), ("dwebsocket.tenants.realm", tenants.realm)],
    "GROUPS": [
        ({}, {"default": BackendSettings()}),
        (
            {"default": {"BACKEND": "dwebsocket.groups.process", "TIMEOUT": 3, "SLOW": "latest"}},
            {"default": BackendSettings("dwebsocket.groups.process", timeout=3.0, slow="latest")},
        ),
        (
            {"default": {"PRESENCE": {"a": {"grace": 0}, "*": {}}}},
            {
                "default": BackendSettings(
                    presence=(PresenceLimits("a", 0.0), PresenceLimits("*", 10.0))
                )
            },
        ),
        (
            {"other": {"LOCATION": ["a", "b"], "PREFIX": "p", "OPTIONS": {"x": 1}}},
            {
                "other": BackendSettings(location=("a", "b"), prefix="p", options={"x": 1}),
                "default": BackendSettings(),
            },
        ),
        (
            {"default": {"LOCATION": "a", "DATABASE": "d", "RUNTIME_DIR": "/run"}},
            {"default": BackendSettings(location=("a",), database="d", runtime_dir="/run")},
        ),
    ],
    "MAX_HISTORY": SIZES,
    "MAX_ROOMS": [(1, 1), (1000, 1000)],
    "ROOMS_RATE": [(1, 1.0), (0.5, 0.5)],
    "ROOMS_BURST": [(1, 1)],
    "MAX_ROOM_INFO": SIZES,
    "MAX_ROOM_EVENT": SIZES,
    "MAX_ROOM_MEMBERS": [(1, 1)],
    "OPERATIONS": [(None, None), (True, True), (False, False)],
    "METRICS_TOKEN": [("", ""), ("x" * 16, "x" * 16)],
    "ENGINE_THREADS": [(1, 1), (64, 64)],
    "HANDLER_THREADS": [(1, 1), (1024, 1024)],
    "CHANNELS_THREADS": [(1, 1), (1024, 1024)],
    "THREAD_STACK_SIZE": [(65536, 65536), (8 * MIB, 8 * MIB)],
}

A_SIZE = "must be a number of bytes, 1 or more, not"
SECONDS_OR_NONE = "must be a number of seconds above 0, or None, not"

BAD_COUNTS = [
    (value, "must be a whole number, or None for no limit, not")
    for value in (-1, 1.5, True, "5", 2**62)
]
A_FUNCTION = "must be the dotted path of a function, not"
BAD_FUNCTIONS = [
    *((value, A_FUNCTION) for value in (7, "context", True, print)),
    ("dwebsocket.tenants.nothing", "is 'dwebsocket.tenants.nothing', which cannot be imported"),
    ("dwebsocket.tenants.__doc__", "is 'dwebsocket.tenants.__doc__', which cannot be called"),
]
BAD_RATES = [
    (value, "must be a number above 0, or None for no limit, not")
    for value in (0, -1, True, "5", math.inf, math.nan, [])
]

BAD: dict[str, list[tuple[Any, str]]] = {
    "ACCEPT_ALL": [(value, "must be True or False, not") for value in (None, 0, 1, "yes")],
    "FACTORY_CLASS": [(value, "must be the dotted path of a class, not") for value in ("B", 5, "")],
    "TEXT_TYPE": [(value, 'must be "bytes" or "str", not') for value in ("text", None, [], int)],
    "ALLOWED_ORIGINS": [
        ("https://a.example", "must be a list of origins"),
        (None, "must be a list of origins"),
        ({"https://a.example": 1}, "must be a list of origins"),
        ([5], "must be a list of origins"),
        (["a.example"], 'write "https://a.example", with the scheme'),
        (["https://a.example/"], "an origin has no path and no slash at its end"),
        (["https://a.example/chat"], "an origin has no path"),
    ],
    "REQUIRE_ORIGIN": [(value, "must be True or False, not") for value in (None, 0, 1, "yes")],
    "SUBPROTOCOLS": [
        ("chat", "must be a list of subprotocol names"),
        ([b"chat"], "must be a list of subprotocol names"),
        (7, "must be a list of subprotocol names"),
        (iter(["a"]), "must be a list of subprotocol names"),
        (["a b"], "has 'a b', which is no subprotocol name"),
        ([""], "has '', which is no subprotocol name"),
        (["é"], "which is no subprotocol name"),
    ],
    "FALLBACK": [(value, "must be True or False, not") for value in (None, 0, 1, "yes")],
    "COMPRESSION": [
        *((value, "must be True, False, or a dict of options") for value in (None, 1, "on", [])),
        ({"window": 9}, "has the unknown key 'window': known are threshold, level, server_no_con"),
        ({"levels": 9}, "has the unknown key 'levels': did you mean level?"),
        ({9: 9}, "has the unknown key 9: known are"),
        ({"level": 0}, "['level'] must be a whole number, 1 to 9, not 0"),
        ({"level": True}, "['level'] must be a whole number, 1 to 9, not True"),
        ({"threshold": -1}, "['threshold'] must be a whole number, 0 or more, not -1"),
        ({"threshold": 1.5}, "['threshold'] must be a whole number, 0 or more, not 1.5"),
        *(
            ({name: value}, f"[{name!r}] must be a whole number, 9 to 15, not {value}")
            for name in ("server_max_window_bits", "client_max_window_bits")
            for value in (8, 16, None)
        ),
        *(
            ({name: 1}, f"[{name!r}] must be True or False, not 1")
            for name in ("server_no_context_takeover", "client_no_context_takeover")
        ),
    ],
    "MAX_MESSAGE_SIZE": [(value, A_SIZE) for value in BAD_SIZES],
    "MAX_FRAME_SIZE": [
        (value, "must be a number of bytes, 1 or more, or None for no limit, not")
        for value in BAD_SIZES
        if value is not None
    ],
    "MAX_FRAGMENTS": [
        (value, "must be a whole number, 1 or more, not")
        for value in (0, -1, 1.5, True, "5", None, 2**32)
    ],
    "RECEIVE_BUFFER": [(value, A_SIZE) for value in BAD_SIZES],
    "MAX_BUFFERED": [
        (value, "must be a number of bytes, a part of the memory (above 0, below 1), or None")
        for value in (0, 0.0, 1.0, -0.5, -1, True, "1G", math.nan, math.inf)
    ],
    "MAX_CONNECTIONS": BAD_COUNTS,
    "MAX_CONNECTIONS_PER_ADDRESS": BAD_COUNTS,
    "MAX_CONNECTIONS_PER_USER": BAD_COUNTS,
    "AUTH_RECHECK": [
        (value, "must be a number of seconds, 0 or more, not") for value in [*BAD_SECONDS[1:], None]
    ],
    "MAX_MESSAGES_PER_SECOND": BAD_RATES,
    "MAX_BYTES_PER_SECOND": BAD_RATES,
    "RATE_TIMEOUT": [(value, SECONDS_OR_NONE) for value in BAD_SECONDS],
    "PING_INTERVAL": [(value, SECONDS_OR_NONE) for value in BAD_SECONDS],
    "PING_TIMEOUT": [(value, SECONDS_OR_NONE) for value in BAD_SECONDS],
    "SEND_BUFFER": [(value, A_SIZE) for value in BAD_SIZES],
    "SEND_TIMEOUT": [(value, SECONDS_OR_NONE) for value in BAD_SECONDS],
    "MESSAGE_TIMEOUT": [(value, SECONDS_OR_NONE) for value in BAD_SECONDS],
    "CLOSE_TIMEOUT": [
        (value, "must be a number of seconds above 0, not") for value in [*BAD_SECONDS, None]
    ],
    "MAX_HANDSHAKE_SIZE": [
        (value, "must be a number of bytes, 1 or more, or None for no limit, not")
        for value in BAD_SIZES
        if value is not None
    ],
    "HANDSHAKE_TIMEOUT": [(value, SECONDS_OR_NONE) for value in BAD_SECONDS],
    "DRAIN": [
        (value, "must be a number of seconds, 0 or more, not") for value in [*BAD_SECONDS[1:], None]
    ],
    "HANDOVER": [(value, "must be True or False, not") for value in (None, 0, 1, "yes")],
    "CONTEXT": BAD_FUNCTIONS,
    "REALM": BAD_FUNCTIONS,
    "GROUPS": [
        ([], "must be a dict of backends, shaped like CACHES, not"),
        ({1: {}}, "has the alias 1: it must be a str"),
        ({"default": "local"}, "['default'] must be a dict, not"),
        ({"default": {"BACKENDS": "x"}}, "unknown key 'BACKENDS': did you mean BACKEND?"),
        ({"default": {"X": "x"}}, "unknown key 'X': known are BACKEND, LOCATION"),
        ({"default": {"BACKEND": "no path"}}, "['BACKEND'] must be a dotted path, not"),
        ({"default": {"BACKEND": None}}, "['BACKEND'] must be a str, not"),
        ({"default": {"LOCATION": 7}}, "['LOCATION'] must be a str or a list of them, not"),
        ({"default": {"LOCATION": [7]}}, "['LOCATION'] must be a str or a list of them, not"),
        # It is empty when it is read again.
        ({"default": {"LOCATION": iter("a")}}, "['LOCATION'] must be a str or a list of them, not"),
        ({"default": {"TIMEOUT": 0}}, "['TIMEOUT'] must be a number of seconds, not"),
        ({"default": {"TIMEOUT": True}}, "['TIMEOUT'] must be a number of seconds, not"),
        ({"default": {"SLOW": "wait"}}, "['SLOW'] must be one of close, drop_newest"),
        ({"default": {"OPTIONS": []}}, "['OPTIONS'] must be a dict, not"),
        ({"default": {"RUNTIME_DIR": "run"}}, "['RUNTIME_DIR'] must be the absolute path of a"),
        ({"default": {"RUNTIME_DIR": 0}}, "['RUNTIME_DIR'] must be the absolute path of a folder"),
        ({"default": {"RUNTIME_DIR": b"/run"}}, "['RUNTIME_DIR'] must be the absolute path of a"),
        ({"default": {"HISTORY": []}}, "['HISTORY'] must be a dict of patterns, not"),
        ({"default": {"HISTORY": {"*": {"size": 2**64}}}}, "['size'] must be a number of messages"),
        ({"default": {"PRESENCE": ["*"]}}, "['PRESENCE'] must be a dict of patterns, not"),
        ({"default": {"PRESENCE": False}}, "['PRESENCE'] must be a dict of patterns, not"),
        ({"default": {"PRESENCE": {"": {}}}}, "['PRESENCE'] has the pattern ''"),
        ({"default": {"PRESENCE": {"*": 10}}}, "['PRESENCE']['*'] must be a dict with grace, not"),
        ({"default": {"PRESENCE": {"*": {"x": 1}}}}, "unknown key 'x': known are grace"),
        ({"default": {"PRESENCE": {"*": {"grace": -1}}}}, "['grace'] must be a number of seconds"),
        ({"default": {"PRESENCE": {"*": {"grace": 1e9}}}}, "at most a day, not"),
        ({"default": {"PRESENCE": {"*": {"grace": True}}}}, "['grace'] must be a number"),
    ],
    "MAX_HISTORY": [(value, A_SIZE) for value in BAD_SIZES],
    "MAX_ROOMS": [(0, "a whole number, 1 or more"), (None, "a whole number, 1 or more")],
    "ROOMS_RATE": [(0, "a number above 0"), (None, "a number above 0"), (True, "above 0")],
    "ROOMS_BURST": [(0, "a whole number, 1 or more")],
    "MAX_ROOM_INFO": [(value, A_SIZE) for value in BAD_SIZES],
    "MAX_ROOM_EVENT": [(value, A_SIZE) for value in BAD_SIZES],
    "MAX_ROOM_MEMBERS": [(0, "a whole number, 1 or more")],
    "OPERATIONS": [(value, "must be True, False or None, not") for value in [0, 1, "yes"]],
    "METRICS_TOKEN": [
        (value, "must be a str of 16 characters or more, or empty")
        for value in [None, b"x" * 16, "x" * 15, 7]
    ],
    "ENGINE_THREADS": [
        (value, "must be a whole number from 1 to 64, not")
        for value in [0, 65, True, 1.0, "2", None]
    ],
    "HANDLER_THREADS": [
        (0, "a whole number from 1 to 1024"),
        (True, "a whole number from 1 to 1024"),
        (1025, "a whole number from 1 to 1024"),
    ],
    "CHANNELS_THREADS": [(value, "a whole number from 1 to 1024") for value in (0, None, 1025)],
    "THREAD_STACK_SIZE": [
        *((value, A_SIZE) for value in BAD_SIZES),
        (65535, "must be 65536 bytes or more, not 65535"),
    ],
}


def test_tables_name_every_setting() -> None:
    """A new setting has to be added to this file."""
    assert list(conf.SETTINGS) == list(DEFAULTS) == list(GOOD) == list(BAD)


@pytest.mark.parametrize("name", DEFAULTS)
def test_default(name: str) -> None:
    """The value that the code uses when the project sets none."""
    value = conf.get(name)
    assert (value, type(value)) == (DEFAULTS[name], type(DEFAULTS[name]))


@pytest.mark.parametrize("name", GOOD)
def test_good_values(override: Override, name: str) -> None:
    """Are used in one form, whatever form they are written in."""
    for value, used in GOOD[name]:
        override(**{f"WEBSOCKET_{name}": value})
        got = conf.get(name)
        assert (got, type(got)) == (used, type(used)), value


@pytest.mark.parametrize("name", BAD)
def test_bad_values(override: Override, name: str) -> None:
    """The message names the setting and says what it must be."""
    for value, message in BAD[name]:
        override(**{f"WEBSOCKET_{name}": value})
        with pytest.raises(ImproperlyConfigured) as caught:
            conf.get(name)
        assert str(caught.value).startswith(f"WEBSOCKET_{name} "), value
        assert message in str(caught.value), value
        assert str(caught.value).endswith("."), value


def test_settings_are_read_again_when_they_were_exchanged_and_only_then(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A handshake asks for a dozen, most of which the project does not set."""
    asked: list[Any] = []
    setting = conf.SETTINGS["SEND_BUFFER"]
    spy = dataclasses.replace(setting, read=lambda value: asked.append(value) or value)
    monkeypatch.setitem(conf.SETTINGS, "SEND_BUFFER", spy)
    with override_settings(WEBSOCKET_SEND_BUFFER=5):
        assert [conf.get("SEND_BUFFER") for _ in range(3)] == [5, 5, 5]
        with override_settings(WEBSOCKET_SEND_BUFFER=6):
            assert conf.get("SEND_BUFFER") == 6
        assert conf.get("SEND_BUFFER") == 5
    assert asked == [5, 6, 5]


def test_what_another_thread_has_left_behind_counts_for_nothing(
    monkeypatch: pytest.MonkeyPatch, override: Override
) -> None:
    """A thread that reads a setting while it is exchanged can leave the other value behind."""
    override(UNRELATED=True)
    monkeypatch.setitem(settings.__dict__, "WEBSOCKET_SEND_BUFFER", 5)
    assert conf.get("SEND_BUFFER") == MIB


class TestOptions:
    """The settings that can differ from view to view."""

    def test_each_is_a_setting(self) -> None:
        """Of the same name; options only, not what concerns the process."""
        assert {name.upper() for name in conf.OPTION_NAMES} == set(DEFAULTS) - {
            "ACCEPT_ALL",
            "FACTORY_CLASS",
            "MAX_BUFFERED",
            "MAX_CONNECTIONS",
            "MAX_CONNECTIONS_PER_ADDRESS",
            "MAX_CONNECTIONS_PER_USER",
            "AUTH_RECHECK",
            "MAX_HANDSHAKE_SIZE",
            "DRAIN",
            "HANDOVER",
            "CONTEXT",
            "REALM",
            "GROUPS",
            "MAX_HISTORY",
            "MAX_ROOMS",
            "ROOMS_RATE",
            "ROOMS_BURST",
            "MAX_ROOM_INFO",
            "MAX_ROOM_EVENT",
            "MAX_ROOM_MEMBERS",
            "OPERATIONS",
            "METRICS_TOKEN",
            "ENGINE_THREADS",
            "HANDLER_THREADS",
            "CHANNELS_THREADS",
            "THREAD_STACK_SIZE",
        }

    def test_come_from_the_settings(self, override: Override) -> None:
        """As they are now."""
        override(WEBSOCKET_PING_INTERVAL=7, WEBSOCKET_SUBPROTOCOLS=["a"])
        options = conf.Options.current({})
        assert (options.ping_interval, options.subprotocols) == (7.0, ("a",))
        expected = {name.lower(): value for name, value in DEFAULTS.items()}
        expected.update(ping_interval=7.0, subprotocols=("a",))
        assert vars(options) == {n: expected[n] for n in conf.OPTION_NAMES}

    def test_overrides_stand_above_the_settings(self, override: Override) -> None:
        """Even if the setting could not be used."""
        override(WEBSOCKET_PING_INTERVAL="often")
        overrides = conf.overrides("accept_websocket", {"ping_interval": None, "text_type": str})
        options = conf.Options.current(overrides)
        assert (options.ping_interval, options.text_type) == (None, str)

    def test_a_bad_setting_is_named(self, override: Override) -> None:
        """As by `get`."""
        override(WEBSOCKET_SEND_BUFFER="large")
        with pytest.raises(ImproperlyConfigured, match=r"^WEBSOCKET_SEND_BUFFER must be"):
            conf.Options.current({})


class TestOverrides:
    """A decorator's keyword arguments."""

    @pytest.mark.parametrize("name", ["ping", "accept_all", "max_connections", "PING_INTERVAL"])
    def test_unknown_names_are_refused(self, name: str) -> None:
        """The message lists those that exist."""
        with pytest.raises(TypeError) as caught:
            conf.overrides("accept_websocket", {name: 1})
        known = ", ".join(conf.OPTION_NAMES)
        expected = f"accept_websocket() has no argument {name!r}; it takes {known}"
        assert str(caught.value) == expected

    @pytest.mark.parametrize("name", [name for name in BAD if name.lower() in conf.OPTION_NAMES])
    def test_bad_values_are_refused(self, name: str) -> None:
        """The message names decorator and argument."""
        for value, message in BAD[name]:
            with pytest.raises(ValueError, match=r"^require_websocket") as caught:
                conf.overrides("require_websocket", {name.lower(): value})
            assert str(caught.value).startswith(f"require_websocket({name.lower()}=…) "), value
            assert message in str(caught.value), value

    def test_values_are_converted(self) -> None:
        """Into the form in which the code uses them."""
        checked = conf.overrides("x", {"text_type": "str", "subprotocols": ["a"]})
        assert checked == {"text_type": str, "subprotocols": ("a",)}
