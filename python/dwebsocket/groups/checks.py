"""System checks of ``WEBSOCKET_GROUPS``."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

from django.core import checks
from django.core.exceptions import ImproperlyConfigured

from dwebsocket import conf
from dwebsocket.groups import backends
from dwebsocket.groups.backends import local

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dwebsocket.conf.group_settings import BackendSettings

_OURS = [f"dwebsocket.groups.{name}" for name in ("local", "process", "redis", "postgres")]


def check() -> list[checks.CheckMessage]:
    """Finds backends that cannot be used with these settings. Connects to no server."""
    return [message for alias, own in _entries() for message in _check(alias, own, deploy=False)]


def check_deployment() -> list[checks.CheckMessage]:
    """Finds backends that cannot be reached now, or after a reboot: for ``check --deploy``."""
    return [
        message
        for alias, own in _entries()
        for message in (*_check(alias, own, deploy=True), *_name_may_be_taken(alias))
    ]


def _entries() -> list[tuple[str, BackendSettings]]:
    return list(conf.get_or("GROUPS", otherwise={}).items())


def _check(alias: str, own: BackendSettings, *, deploy: bool) -> Iterator[checks.CheckMessage]:
    try:
        backend = backends.backend(alias)
    except ImproperlyConfigured as error:
        if not deploy:
            yield checks.Error(str(error), hint=_hint(own), id="dwebsocket.E005")
        return
    known = set(backend.problems(deploy=False))
    for problem in backend.problems(deploy=deploy):
        # What `check` finds without `--deploy` is not repeated.
        if not (deploy and problem in known):
            yield checks.Error(f"WEBSOCKET_GROUPS[{alias!r}]: {problem}", id="dwebsocket.E006")


def _name_may_be_taken(alias: str) -> Iterator[checks.CheckMessage]:
    try:
        backend = backends.backend(alias)
    except ImproperlyConfigured:
        # Said already.
        return
    if isinstance(backend, local.Backend) and (parent := backend.open_parent) is not None:
        yield checks.Warning(
            f"WEBSOCKET_GROUPS[{alias!r}]: every user of this machine may write to {parent}. After "
            f"a reboot one of them can make {backend.folder} first, and there are no groups then.",
            hint="Set RUNTIME_DIR to a folder that only this user may write to, such as that of "
            "RuntimeDirectory= in a systemd unit.",
            id="dwebsocket.W008",
        )


def _hint(own: BackendSettings) -> str:
    meant = difflib.get_close_matches(own.backend, _OURS, n=1, cutoff=0.8)
    meant = meant or [path for path in _OURS if path.endswith(f".{own.backend.lower()}")]
    if meant and meant[0] != own.backend:
        return f"Did you mean {meant[0]}?"
    return f"Known are {', '.join(_OURS)}; others are dotted paths of subclasses of Backend."
