"""Settings of sites whose groups are on a server of the test's own, or on none."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import pytest

from handover.test_gunicorn import SETTINGS
from support import postgres, redis

if TYPE_CHECKING:
    from collections.abc import Iterator

LATER = pytest.mark.every("one protocol above both databases")
REDIS = pytest.param("redis", marks=pytest.mark.needs("redis"))
POSTGRES = pytest.param("postgres", marks=pytest.mark.needs("postgresql"))
#: The backends that have a server, each in every run: what they themselves have to keep.
SERVED = (REDIS, POSTGRES)
POSTGRES_LATER = pytest.param("postgres", marks=[*POSTGRES.marks, LATER])
#: Those whose processes know each other's users.
SHARED = ("local", REDIS, POSTGRES_LATER)


def on_redis(server: redis.Redis, **more: Any) -> dict[str, Any]:
    """Give the settings of a site with groups on a Redis server."""
    return {**SETTINGS, "WEBSOCKET_GROUPS": {"default": redis.settings(server.url, **more)}}


@contextlib.contextmanager
def carried(backend: str, **more: Any) -> Iterator[dict[str, Any]]:
    """Give the settings of a site with groups of a backend, and run its server, if it has one."""
    if backend == "redis":
        with redis.Redis() as server:
            yield on_redis(server, **more)
        return
    groups = {"BACKEND": f"dwebsocket.groups.{backend}", **more}
    if backend != "postgres":
        yield {**SETTINGS, "WEBSOCKET_GROUPS": {"default": groups}}
        return
    with postgres.postgres() as folder:
        settings = {
            **SETTINGS,
            "INSTALLED_APPS": [*SETTINGS["INSTALLED_APPS"], "dwebsocket.groups.postgres"],
            "DATABASES": {"default": postgres.entry(folder)},
            "WEBSOCKET_GROUPS": {"default": {"TIMEOUT": 20.0, **groups}},
        }
        postgres.migrate(settings)
        yield settings
