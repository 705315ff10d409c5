"""System checks: invalid settings, and set-ups that do not have the effect that they seem to."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

from django.apps import apps
from django.conf import settings
from django.core import checks
from django.utils.module_loading import import_string

from dwebsocket import conf
from dwebsocket.compat.django import join_run
from dwebsocket.compat.system import NO_TAKEOVER, ONLY_UNDER_ASGI
from dwebsocket.conf import channel_settings
from dwebsocket.conf.group_settings import DEFAULT

if TYPE_CHECKING:
    from collections.abc import Iterator

_OF_GROUPS = "dwebsocket.groups.checks"
_MIDDLEWARE = "dwebsocket.middleware.WebSocketMiddleware"
_WORKERS = re.compile(r"(?:^|\s)(?:-w|--workers)[\s=]*(\d+)")
_OLD_DISTRIBUTION = re.compile(r"dwebsocket-(.+?)(?:-py[\d.]+)?\.(?:dist|egg)-info")
# Schemes that are no page's, and those of the pages that mean them.
_OF_WEBSOCKETS = {"ws": "http", "wss": "https"}


def register() -> None:
    """Registers the checks with Django. May be repeated; needs no settings."""
    for each in (check, check_groups):
        checks.register(each)
        join_run(each, deploy=False)
    for each in (check_deployment, check_groups_of_deployment):
        checks.register(each, deploy=True)
        join_run(each, deploy=True)


def check(app_configs: Any = None, **kwargs: Any) -> list[checks.CheckMessage]:
    """Runs every check of this package."""
    return [
        *_engine(),
        *_application(),
        *_unknown_settings(),
        *_wrong_values(),
        *_origins(),
        *_factory(),
        *_middleware(),
        *_old_distribution(),
        *_channel_layers(),
        *(_layers_in_memory() if _has_several_workers() else ()),
    ]


def check_deployment(app_configs: Any = None, **kwargs: Any) -> list[checks.CheckMessage]:
    """Runs the checks of ``manage.py check --deploy``."""
    # Elsewhere the number of workers may be in the server's own configuration.
    return [] if _has_several_workers() else list(_layers_in_memory())


def check_groups(app_configs: Any = None, **kwargs: Any) -> list[checks.CheckMessage]:
    """Runs the checks of ``WEBSOCKET_GROUPS``."""
    if not hasattr(settings, "WEBSOCKET_GROUPS"):
        # The default has no problems. Each command would import all that groups need.
        return []
    found: list[checks.CheckMessage] = import_module(_OF_GROUPS).check()
    return found


def check_groups_of_deployment(app_configs: Any = None, **kwargs: Any) -> list[checks.CheckMessage]:
    """Runs those of ``manage.py check --deploy``."""
    found: list[checks.CheckMessage] = import_module(_OF_GROUPS).check_deployment()
    return found


def _engine() -> Iterator[checks.CheckMessage]:
    if NO_TAKEOVER:
        yield checks.Warning(
            "WebSockets on this system need an ASGI server.",
            hint=ONLY_UNDER_ASGI,
            id="dwebsocket.W005",
        )


def _application() -> Iterator[checks.CheckMessage]:
    if not apps.is_installed("dwebsocket"):
        yield checks.Warning(
            '"dwebsocket" is not in INSTALLED_APPS: under an ASGI server Django\'s own '
            "get_asgi_application() serves no WebSockets, and there is no dwebsocket.js, no "
            "websocket_doctor and no migration.",
            hint='INSTALLED_APPS += ["dwebsocket"]; or silence this check where no ASGI server, '
            "page or command needs it.",
            id="dwebsocket.W010",
        )


def _unknown_settings() -> Iterator[checks.CheckMessage]:
    known = [conf.PREFIX + name for name in conf.SETTINGS]
    for name in dir(settings):
        if not name.startswith(conf.PREFIX) or name in known:
            continue
        # Without the prefix, by which any two short names are alike.
        given = name.removeprefix(conf.PREFIX)
        if close := difflib.get_close_matches(given, conf.SETTINGS, n=1, cutoff=0.8):
            yield checks.Error(
                f"{name} is no setting of dwebsocket.",
                hint=f"Did you mean {conf.PREFIX}{close[0]}?",
                id="dwebsocket.E001",
            )
        else:
            yield checks.Warning(
                f"{name} is no setting of dwebsocket.",
                hint="If it is the project's own, silence this check or rename the setting. "
                f"Known are {', '.join(known)}.",
                id="dwebsocket.W001",
            )


def _wrong_values() -> Iterator[checks.CheckMessage]:
    for name, setting in conf.SETTINGS.items():
        value = getattr(settings, conf.PREFIX + name, setting.default)
        try:
            conf.read(name, value)
        except ValueError as error:
            yield checks.Error(f"{conf.PREFIX}{name} {error}.", id="dwebsocket.E002")


def _origins() -> Iterator[checks.CheckMessage]:
    for origin in conf.get_or("ALLOWED_ORIGINS", otherwise=()):
        scheme, _, host = origin.partition("://")
        parts = conf.parts_of_origin(f"{scheme}://{host.removeprefix('*.')}")
        if origin in conf.SPECIAL_ORIGINS or (parts and scheme not in _OF_WEBSOCKETS):
            continue
        if scheme in _OF_WEBSOCKETS:
            hint = (
                f'Write "{_OF_WEBSOCKETS[scheme]}://{host}": an Origin has the scheme of the page.'
            )
        elif not host.isascii():
            hint = "Write the name as browsers send it, in ASCII (xn--…)."
        else:
            hint = 'Write "https://host" or "https://host:port"; "*." may stand before the host.'
        yield checks.Warning(
            f"WEBSOCKET_ALLOWED_ORIGINS has {origin!r}, which is the Origin of no page.",
            hint=hint,
            id="dwebsocket.W011",
        )


def _factory() -> Iterator[checks.CheckMessage]:
    path = getattr(settings, "WEBSOCKET_FACTORY_CLASS", None)
    if path in conf.DEFAULT_FACTORIES:
        yield checks.Warning(
            f"WEBSOCKET_FACTORY_CLASS = {path!r} has no effect any more.",
            hint="Remove it: the server is detected without it.",
            id="dwebsocket.W002",
        )
    elif isinstance(path, str) and "." in path:
        try:
            import_string(path)
        except ImportError as error:
            yield checks.Error(
                f"WEBSOCKET_FACTORY_CLASS names a class that cannot be imported: {error}.",
                id="dwebsocket.E003",
            )


def _middleware() -> Iterator[checks.CheckMessage]:
    if _MIDDLEWARE in getattr(settings, "MIDDLEWARE_CLASSES", ()):
        yield checks.Warning(
            "MIDDLEWARE_CLASSES is ignored by Django since version 2.0.",
            hint=f'Write MIDDLEWARE = [..., "{_MIDDLEWARE}"] instead, with it at the end.',
            id="dwebsocket.W003",
        )
    names = list(settings.MIDDLEWARE or ())
    if _MIDDLEWARE not in names:
        return
    below = names[names.index(_MIDDLEWARE) + 1 :]
    skipped = [name for name in below if _has_process_view(name)]
    if skipped:
        yield checks.Warning(
            f"{', '.join(skipped)} stands below {_MIDDLEWARE} in MIDDLEWARE: for WebSockets of "
            "views without a decorator process_view() is called on another object of its class.",
            hint=f'Move "{_MIDDLEWARE}" to the end of MIDDLEWARE.',
            id="dwebsocket.W004",
        )


def _has_process_view(path: str) -> bool:
    try:
        return hasattr(import_string(path), "process_view")
    except ImportError:
        # Django itself reports this, in more detail.
        return False


def _old_distribution() -> Iterator[checks.CheckMessage]:
    # The import of importlib.metadata, which knows it too, takes as long as all of these checks.
    for name in os.listdir(os.path.dirname(os.path.dirname(os.path.dirname(__file__)))):
        if found := _OLD_DISTRIBUTION.fullmatch(name):
            yield checks.Error(
                f"dwebsocket {found[1]} is installed beside dwebsocket2, and both own the same "
                "folder.",
                hint="Run: pip uninstall dwebsocket; pip install --force-reinstall dwebsocket2",
                id="dwebsocket.E004",
            )


def _layers() -> list[tuple[Any, Mapping[Any, Any]]]:
    layers = getattr(settings, "CHANNEL_LAYERS", None)
    entries = layers.items() if isinstance(layers, Mapping) else ()
    return [(alias, entry) for alias, entry in entries if isinstance(entry, Mapping)]


def _channel_layers() -> Iterator[checks.CheckMessage]:
    for alias, entry in _layers():
        if entry.get("BACKEND") not in channel_settings.BACKENDS:
            continue
        yield from _channel_layer(f"CHANNEL_LAYERS[{alias!r}]['CONFIG']", entry.get("CONFIG", {}))
        # What Channels makes for tests.
        if "TEST_CONFIG" in entry:
            name = f"CHANNEL_LAYERS[{alias!r}]['TEST_CONFIG']"
            yield from _channel_layer(name, entry["TEST_CONFIG"])


def _channel_layer(name: str, config: Any) -> Iterator[checks.CheckMessage]:
    for where, what, hint in channel_settings.problems(config):
        yield checks.Error(f"{name}{where} {what}.", hint=hint or None, id="dwebsocket.E007")
    known = conf.get_or("GROUPS", otherwise=None)
    using = config.get("using", DEFAULT) if isinstance(config, Mapping) else DEFAULT
    if isinstance(using, str) and known is not None and using not in known:
        yield checks.Error(
            f"{name}['using'] is {using!r}, which is no alias of WEBSOCKET_GROUPS.",
            hint=f"Write one of {', '.join(sorted(known))}, or add {using!r} to WEBSOCKET_GROUPS.",
            id="dwebsocket.E008",
        )


def _has_several_workers() -> bool:
    """Whether the environment says that the server has more than one worker."""
    workers = os.environ.get("WEB_CONCURRENCY", "")
    if found := _WORKERS.search(os.environ.get("GUNICORN_CMD_ARGS", "")):
        workers = found[1]
    return workers.isdecimal() and int(workers) > 1


def _layers_in_memory() -> Iterator[checks.CheckMessage]:
    for alias, entry in _layers():
        if entry.get("BACKEND") == channel_settings.IN_MEMORY:
            yield checks.Warning(
                f"CHANNEL_LAYERS[{alias!r}] is Channels' layer in memory: with several workers "
                "each one reaches its own consumers only.",
                hint=f'Write "BACKEND": "{channel_settings.BACKENDS[0]}", which reaches all '
                "workers of a machine, and needs no server. With one worker silence this check.",
                id="dwebsocket.W009",
            )
