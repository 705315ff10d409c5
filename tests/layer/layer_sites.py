"""Sites whose processes share channel layers, one for each backend of groups."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
from typing import TYPE_CHECKING, Any

import pytest
from asgiref.sync import sync_to_async
from django.db import connections

from dwebsocket.api import callbacks
from dwebsocket.testing.clock import Clock
from support import postgres
from support.redis import Cluster, Redis, Service

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

# Each server has a name of its own in DATABASES: threads keep what they know of a name.
_numbers = itertools.count(1)
# A time that a busy machine does not reach.
TIMEOUT = 20.0
CROSSING = [
    "local",
    pytest.param("redis", marks=[pytest.mark.needs("redis"), pytest.mark.xdist_group("layer r")]),
    pytest.param(
        "postgres",
        marks=[
            pytest.mark.needs("postgresql"),
            pytest.mark.xdist_group("layer p"),
            # Threads publish, and end: as with any use of Django's connections there.
            pytest.mark.filterwarnings("ignore:.*was deleted while still open:ResourceWarning"),
        ],
    ),
]
# Several servers: groups are spread over three; one that sentinels name; a cluster.
SEVERAL = [
    pytest.param(kind, marks=[pytest.mark.needs("redis"), pytest.mark.xdist_group(f"layer {kind}")])
    for kind in ("shards", "sentinels", "cluster")
]
EVERY = [
    pytest.param("process", marks=pytest.mark.every("a part of what the local backend does")),
    *CROSSING,
]


def in_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run an async test in a loop of its own."""

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        asyncio.run(asyncio.wait_for(test(*args, **kwargs), 60))

    return run


class Site:
    """
    What processes of a test have in common.

    Attributes:
        groups: The entry of WEBSOCKET_GROUPS.
        databases: DATABASES of other processes.
        database: The alias of that of the groups.
        server: The Redis server, if there is one.
    """

    server: Redis

    def __init__(
        self, groups: dict[str, Any], databases: dict[str, Any], database: str = "default"
    ) -> None:
        self.groups = groups
        self.databases = databases
        self.database = database


@contextlib.contextmanager
def running(kind: str) -> Iterator[Site]:
    groups: dict[str, Any] = {"BACKEND": f"dwebsocket.groups.{kind}", "TIMEOUT": TIMEOUT}
    if kind == "redis":
        with Redis() as server:
            site = Site({**groups, "LOCATION": server.url}, {})
            site.server = server
            yield site
    elif kind in ("shards", "sentinels", "cluster"):
        with contextlib.ExitStack() as servers:
            yield Site({**groups, **_several(kind, servers)}, {})
    elif kind == "postgres":
        with postgres.postgres() as folder:
            entry = postgres.entry(folder)
            alias = f"layer-{next(_numbers)}"
            with _database(alias, entry):
                databases = {"default": {}, alias: entry}
                yield Site({**groups, "DATABASE": alias}, databases, alias)
    else:
        yield Site(groups, {})


def _several(kind: str, servers: contextlib.ExitStack) -> dict[str, Any]:
    start = servers.enter_context
    if kind == "shards":
        location: str | list[str] = [start(Redis()).url for _ in range(3)]
    else:
        location = start(Service() if kind == "sentinels" else Cluster()).url
    return {"BACKEND": "dwebsocket.groups.redis", "LOCATION": location}


@contextlib.contextmanager
def _database(alias: str, entry: dict[str, Any]) -> Iterator[None]:
    with postgres.database(alias, entry):
        try:
            yield
        finally:
            asyncio.run(sync_to_async(connections.close_all)())
            connections.close_all()
    # The timer for slow publishers is due then, and ends with its thread.
    Clock().advance(TIMEOUT)
    assert callbacks.dismiss(60)
