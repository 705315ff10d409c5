"""System checks: each problem, its level and what its message says."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
from django.core import checks as django_checks
from django.core.checks.registry import registry
from django.core.exceptions import ImproperlyConfigured
from django.core.management import call_command
from django.core.management.base import SystemCheckError

from dwebsocket import conf
from dwebsocket.channels import ChannelLayer
from dwebsocket.conf import checks
from dwebsocket.factory import WebSocketFactory

if TYPE_CHECKING:
    from pathlib import Path

    from django.core.checks import CheckMessage

Override = Callable[..., None]

OURS = "dwebsocket.middleware.WebSocketMiddleware"


class AboutViews:
    """A middleware with a `process_view`."""

    def __init__(self, get_response: Any) -> None: ...
    def process_view(self, *args: Any) -> None: ...


class Factory(WebSocketFactory):
    """A project's own."""


class Silent:
    """A middleware without `process_view`."""

    def __init__(self, get_response: Any) -> None: ...


@pytest.fixture(autouse=True)
def installed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The apps that are installed: ours by default."""
    names = ["dwebsocket"]
    monkeypatch.setattr(checks.apps, "is_installed", names.__contains__)
    return names


def only() -> CheckMessage:
    """Give the one message of the present settings."""
    messages = checks.check()
    assert len(messages) == 1, messages
    return messages[0]


def test_app_is_missing(installed: list[str]) -> None:
    """A warning with the line to write, since Django's ASGI handler serves no WebSocket then."""
    installed.clear()
    message = only()
    assert (message.level, message.id) == (django_checks.WARNING, "dwebsocket.W010")
    assert 'INSTALLED_APPS += ["dwebsocket"]' in (message.hint or "")


@pytest.mark.parametrize(
    ("origin", "hint"),
    [
        ("wss://example.com", 'Write "https://example.com"'),
        ("ws://*.example.com", 'Write "http://*.example.com"'),
        ("https://exämple.com", "xn--"),
        ("https://*", "before the host"),
        ("https://www.*.com", "before the host"),
        ("https://user@example.com", "before the host"),
        ("https://example.com:99999", "before the host"),
        ("https://", "before the host"),
    ],
)
def test_origin_of_no_page(override: Override, origin: str, hint: str) -> None:
    """An entry that no browser's Origin can be."""
    override(WEBSOCKET_ALLOWED_ORIGINS=["https://a.example", origin])
    message = only()
    assert (message.level, message.id) == (django_checks.WARNING, "dwebsocket.W011")
    assert origin in message.msg
    assert hint in (message.hint or "")


def test_origins_of_pages(override: Override) -> None:
    """Nothing to say about those that some page has."""
    origins = [
        "*",
        "null",
        "file://",
        "https://*.a.example",
        "http://[::1]:8000",
        "app://localhost",
    ]
    override(WEBSOCKET_ALLOWED_ORIGINS=origins)
    assert checks.check() == []


def test_defaults_are_fine() -> None:
    """Nothing to say about a project without settings."""
    assert checks.check() == []


def test_every_good_setting_is_fine(override: Override) -> None:
    """Written as the documentation does."""
    override(
        WEBSOCKET_ACCEPT_ALL=True,
        WEBSOCKET_FACTORY_CLASS="test_checks.Factory",
        WEBSOCKET_TEXT_TYPE="str",
        WEBSOCKET_ALLOWED_ORIGINS=["https://a.example"],
        WEBSOCKET_SUBPROTOCOLS=["chat"],
        WEBSOCKET_MAX_CONNECTIONS=None,
        WEBSOCKET_PING_INTERVAL=None,
        MIDDLEWARE=["test_checks.AboutViews", OURS],
    )
    assert checks.check() == []


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("WEBSOCKET_PING_INTERVALL", "WEBSOCKET_PING_INTERVAL"),
        ("WEBSOCKET_ALLOWED_ORIGIN", "WEBSOCKET_ALLOWED_ORIGINS"),
        ("WEBSOCKET_MAX_MESSAGES_SIZE", "WEBSOCKET_MAX_MESSAGE_SIZE"),
        ("WEBSOCKET_TEXTTYPE", "WEBSOCKET_TEXT_TYPE"),
    ],
)
def test_misspelt_setting(override: Override, written: str, meant: str) -> None:
    """An error with the name that was meant."""
    override(**{written: 1})
    message = only()
    assert (message.level, message.id) == (django_checks.ERROR, "dwebsocket.E001")
    assert message.msg == f"{written} is no setting of dwebsocket."
    assert message.hint == f"Did you mean {meant}?"


@pytest.mark.parametrize("name", ["WEBSOCKET_URL", "WEBSOCKET_ROOT", "WEBSOCKET_GROW"])
def test_short_name_of_the_projects_own_is_no_misspelt_one(override: Override, name: str) -> None:
    """Only the prefix is the same as that of ours."""
    override(**{name: "x"})
    assert only().id == "dwebsocket.W001"


def test_unknown_setting(override: Override) -> None:
    """Perhaps the project's own: a warning with all that are known."""
    override(WEBSOCKET_URL="wss://example.com/")
    message = only()
    assert (message.level, message.id) == (django_checks.WARNING, "dwebsocket.W001")
    assert message.msg == "WEBSOCKET_URL is no setting of dwebsocket."
    for name in conf.SETTINGS:
        assert f"WEBSOCKET_{name}" in (message.hint or "")


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("PING_INTERVAL", "25", "must be a number of seconds above 0, or None, not '25'"),
        ("ACCEPT_ALL", "True", "must be True or False, not 'True'"),
        ("THREAD_STACK_SIZE", 1000, "must be 65536 bytes or more, not 1000"),
        ("FACTORY_CLASS", object, f"must be the dotted path of a class, not {object!r}"),
        *(
            (
                "FACTORY_CLASS",
                path,
                f"is {path!r}, which is no class with is_websocket() and create_websocket()",
            )
            for path in ("os.path", "os.path.join", "os.PathLike")
        ),
    ],
)
def test_mistyped_setting(override: Override, name: str, value: Any, expected: str) -> None:
    """An error that says what it must be."""
    override(**{f"WEBSOCKET_{name}": value})
    message = only()
    assert (message.level, message.id) == (django_checks.ERROR, "dwebsocket.E002")
    assert message.msg == f"WEBSOCKET_{name} {expected}."


@pytest.mark.parametrize(
    "path",
    [
        "dwebsocket.factory.WebSocketFactory",
        "dwebsocket.backends.default.factory.WebSocketFactory",
        "dwebsocket.backends.uwsgi.factory.uWsgiWebSocketFactory",
    ],
)
def test_needless_factory(override: Override, path: str) -> None:
    """The original's values may go."""
    override(WEBSOCKET_FACTORY_CLASS=path)
    message = only()
    assert (message.level, message.id) == (django_checks.WARNING, "dwebsocket.W002")
    assert message.msg == f"WEBSOCKET_FACTORY_CLASS = {path!r} has no effect any more."
    assert message.hint == "Remove it: the server is detected without it."


@pytest.mark.parametrize("path", ["nowhere.Factory", "test_checks.Missing"])
def test_factory_that_cannot_be_imported(override: Override, path: str) -> None:
    """An error with Python's own reason."""
    override(WEBSOCKET_FACTORY_CLASS=path)
    message = only()
    assert (message.level, message.id) == (django_checks.ERROR, "dwebsocket.E003")
    assert message.msg.startswith("WEBSOCKET_FACTORY_CLASS names a class that cannot be imported")
    assert path.rpartition(".")[0] in message.msg


def test_middleware_classes(override: Override) -> None:
    """The setting of Django 1.x tutorials does nothing: the message has the line to write."""
    override(MIDDLEWARE_CLASSES=[OURS])
    message = only()
    assert (message.level, message.id) == (django_checks.WARNING, "dwebsocket.W003")
    assert message.hint == f'Write MIDDLEWARE = [..., "{OURS}"] instead, with it at the end.'


def test_middleware_classes_without_ours(override: Override) -> None:
    """The list does not name our middleware: no message."""
    override(MIDDLEWARE_CLASSES=["somebody.Elses"])
    assert checks.check() == []


def test_middleware_above_one_that_has_a_say_in_views(override: Override) -> None:
    """Its `process_view` is not called for WebSockets; other middleware does not matter."""
    override(MIDDLEWARE=[OURS, "test_checks.Silent", "test_checks.AboutViews", "nowhere.Missing"])
    message = only()
    assert (message.level, message.id) == (django_checks.WARNING, "dwebsocket.W004")
    assert message.msg.startswith(f"test_checks.AboutViews stands below {OURS} in MIDDLEWARE")
    assert message.hint == f'Move "{OURS}" to the end of MIDDLEWARE.'


@pytest.fixture
def old_distribution(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Installs the package where other distributions are, too."""
    monkeypatch.setattr(checks, "__file__", str(tmp_path / "dwebsocket" / "conf" / "checks.py"))
    (tmp_path / "dwebsocket2-0.2.0.dist-info").mkdir()
    return lambda name: (tmp_path / name).mkdir()


@pytest.mark.parametrize(
    "trace", ["dwebsocket-0.5.12.dist-info", "dwebsocket-0.5.12-py3.11.egg-info"]
)
def test_old_distribution(trace: str, old_distribution: Callable[[str], None]) -> None:
    """Both own the same folder: the message says how to get out of it."""
    old_distribution(trace)
    message = only()
    assert (message.level, message.id) == (django_checks.ERROR, "dwebsocket.E004")
    assert message.msg.startswith("dwebsocket 0.5.12 is installed beside dwebsocket2")
    assert "pip uninstall dwebsocket" in (message.hint or "")


CHANNEL_LAYER = "dwebsocket.channels.ChannelLayer"
CONFIG = "CHANNEL_LAYERS['default']['CONFIG']"


def use_layer(override: Override, backend: str = CHANNEL_LAYER, **more: Any) -> None:
    """Set the default channel layer, and a second backend of groups."""
    groups = {"redis": {"BACKEND": "dwebsocket.groups.redis", "LOCATION": "redis://10.0.0.5/0"}}
    override(CHANNEL_LAYERS={"default": {"BACKEND": backend, **more}}, WEBSOCKET_GROUPS=groups)


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"CONFIG": {}},
        {"CONFIG": {"using": "redis", "bridge": True, "expiry": 0.5, "group_expiry": 60}},
        {"CONFIG": {"capacity": 1, "channel_capacity": {"a-*": 1, re.compile("b"): 2}}},
        {"CONFIG": {"channel_capacity": None}, "TEST_CONFIG": {"using": "default"}},
    ],
)
def test_good_channel_layer(override: Override, more: dict[str, Any]) -> None:
    """Nothing to say, and Channels can make it."""
    use_layer(override, **more)
    assert checks.check() == []
    ChannelLayer(**more.get("CONFIG", {}))


@pytest.mark.parametrize(
    "layers",
    [None, [], {"default": None}, {"default": {"BACKEND": "other.Layer", "CONFIG": {"hosts": []}}}],
)
def test_channel_layers_of_others(override: Override, layers: Any) -> None:
    """They are not validated."""
    override(CHANNEL_LAYERS=layers)
    assert checks.check() == []


def layer_in_memory(override: Override) -> None:
    """Use the layer that Channels has for development."""
    override(CHANNEL_LAYERS={"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}})


@pytest.mark.parametrize(
    "environ",
    [
        {"WEB_CONCURRENCY": "4"},
        {"GUNICORN_CMD_ARGS": "--bind :80 --workers=3"},
        {"GUNICORN_CMD_ARGS": "-w 2", "WEB_CONCURRENCY": "1"},
    ],
)
def test_layer_in_memory_beside_several_workers(
    override: Override, monkeypatch: pytest.MonkeyPatch, environ: dict[str, str]
) -> None:
    """A warning, once."""
    layer_in_memory(override)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    message = only()
    assert (message.level, message.id) == (django_checks.WARNING, "dwebsocket.W009")
    assert '"BACKEND": "dwebsocket.channels.ChannelLayer"' in (message.hint or "")
    assert checks.check_deployment() == []


@pytest.mark.parametrize("environ", [{}, {"WEB_CONCURRENCY": "1"}, {"WEB_CONCURRENCY": "auto"}])
def test_layer_in_memory(
    override: Override, monkeypatch: pytest.MonkeyPatch, environ: dict[str, str]
) -> None:
    """Is a warning of the check for deployments only, as the number of workers is not known."""
    for name in ("WEB_CONCURRENCY", "GUNICORN_CMD_ARGS"):
        monkeypatch.delenv(name, raising=False)
    layer_in_memory(override)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    assert checks.check() == []
    assert [message.id for message in checks.check_deployment()] == ["dwebsocket.W009"]


UNKNOWN = "is an unknown key"
SECONDS = "must be a number of seconds above 0, not"
MESSAGES = "must be a number of messages, 1 or more, not"


@pytest.mark.parametrize(
    ("config", "where", "what", "hint"),
    [
        ({"hosts": ["x"]}, "['hosts']", UNKNOWN, "LOCATION in WEBSOCKET_GROUPS"),
        ({"prefix": "a"}, "['prefix']", UNKNOWN, "PREFIX in WEBSOCKET_GROUPS"),
        (
            {"symmetric_encryption_keys": ["a"]},
            "['symmetric_encryption_keys']",
            UNKNOWN,
            "For encryption use TLS: rediss://",
        ),
        ({"Expiry": 1}, "['Expiry']", UNKNOWN, "Did you mean expiry?"),
        ({"capcity": 1}, "['capcity']", UNKNOWN, "Did you mean capacity?"),
        ({"zzz": 1}, "['zzz']", UNKNOWN, "Known are using, bridge, expiry"),
        ({"using": None}, "['using']", "must be a str, not None", "an alias of WEBSOCKET_GROUPS"),
        ({"bridge": 1}, "['bridge']", "must be True or False, not 1", ""),
        ({"expiry": 0}, "['expiry']", f"{SECONDS} 0", ""),
        ({"expiry": float("nan")}, "['expiry']", f"{SECONDS} nan", ""),
        ({"group_expiry": "1"}, "['group_expiry']", f"{SECONDS} '1'", ""),
        ({"capacity": True}, "['capacity']", f"{MESSAGES} True", ""),
        ({"capacity": 1.5}, "['capacity']", f"{MESSAGES} 1.5", ""),
        (
            {"channel_capacity": 100},
            "['channel_capacity']",
            "must be a dict of capacities, not 100",
            "pattern*",
        ),
        (
            {"channel_capacity": {"a*": 0}},
            "['channel_capacity']['a*']",
            f"{MESSAGES} 0",
            "",
        ),
        (
            {"channel_capacity": {7: 1}},
            "['channel_capacity']",
            "has the key 7, which is no pattern",
            "re.compile()",
        ),
    ],
)
def test_wrong_channel_layer(
    override: Override, config: dict[str, Any], where: str, what: str, hint: str
) -> None:
    """An error with the place and the values that are possible; the layer itself says the same."""
    use_layer(override, CONFIG=config)
    message = only()
    assert (message.level, message.id) == (django_checks.ERROR, "dwebsocket.E007")
    assert message.msg == f"{CONFIG}{where} {what}."
    assert hint in (message.hint or "")
    with pytest.raises(ImproperlyConfigured) as raised:
        ChannelLayer(**config)
    assert str(raised.value).startswith(f"CONFIG{where} in CHANNEL_LAYERS {what}.")
    assert hint in str(raised.value)


@pytest.mark.parametrize("key", ["CONFIG", "TEST_CONFIG"])
@pytest.mark.parametrize("config", [None, [("capacity", 1)]])
def test_channel_layer_whose_config_is_no_dict(override: Override, key: str, config: Any) -> None:
    """An error with what is there; Channels raises a `TypeError` later."""
    use_layer(override, **{key: config})
    assert only().msg == f"CHANNEL_LAYERS['default']['{key}'] must be a dict, not {config!r}."


@pytest.mark.parametrize("backend", [CHANNEL_LAYER, "dwebsocket.channels.layer.ChannelLayer"])
def test_channel_layer_with_an_unknown_alias(override: Override, backend: str) -> None:
    """An error with those that are known."""
    use_layer(override, backend, CONFIG={"using": "elsewhere"})
    message = only()
    assert (message.level, message.id) == (django_checks.ERROR, "dwebsocket.E008")
    assert message.msg == (
        f"{CONFIG}['using'] is 'elsewhere', which is no alias of WEBSOCKET_GROUPS."
    )
    assert message.hint == "Write one of default, redis, or add 'elsewhere' to WEBSOCKET_GROUPS."


def test_channel_layer_beside_invalid_groups(override: Override) -> None:
    """Only these are reported: which aliases there are is unknown."""
    use_layer(override, CONFIG={"using": "elsewhere"})
    override(WEBSOCKET_GROUPS=[])
    assert only().id == "dwebsocket.E002"


def test_every_problem_of_a_channel_layer(override: Override) -> None:
    """`manage.py check` fails, and lists all of them."""
    use_layer(override, CONFIG={"hosts": [], "expiry": 0, "using": "elsewhere"})
    with pytest.raises(SystemCheckError) as raised:
        call_command("check")
    text = str(raised.value)
    for part in ("['hosts']", "['expiry']", "['using'] is 'elsewhere'", "E007", "E008"):
        assert part in text


def test_several_problems_are_all_told(
    override: Override, old_distribution: Callable[[str], None]
) -> None:
    """One does not hide the other."""
    old_distribution("dwebsocket-0.5.12.dist-info")
    override(WEBSOCKET_PING_TIMEOUTS=1, WEBSOCKET_SEND_BUFFER=0)
    assert {message.id for message in checks.check()} == {
        "dwebsocket.E001",
        "dwebsocket.E002",
        "dwebsocket.E004",
    }


def test_registered_once_by_importing() -> None:
    """Decorators and middleware both register, Django runs it once."""
    import dwebsocket.decorators
    import dwebsocket.middleware

    assert dwebsocket.decorators is not None
    assert dwebsocket.middleware is not None
    checks.register()
    assert [check for check in registry.get_checks() if check is checks.check] == [checks.check]
