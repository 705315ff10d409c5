"""The backends that keep the history of groups, for tests over all of them."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from django.db import connections

from dwebsocket.groups import backends
from dwebsocket.groups.backends.postgres import Backend as PostgresBackend
from dwebsocket.testing.clock import Clock
from support import postgres
from support.redis import Redis, settings
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

#: Gives the entry of WEBSOCKET_GROUPS for a backend, without HISTORY.
HistoryEntry = Callable[[str], dict[str, Any]]

#: The alias of the database of :func:`postgres_database`.
DATABASE = "history"
# A time that a busy machine does not reach.
_TIMEOUT_S = 20.0

REDIS = pytest.param("redis", marks=pytest.mark.needs("redis"))
POSTGRES = pytest.param(
    "postgres",
    marks=[
        pytest.mark.needs("postgresql"),
        pytest.mark.xdist_group("groups postgres"),
        # Threads publish, and end: as with any use of Django's connections there.
        pytest.mark.filterwarnings("ignore:.*was deleted while still open:ResourceWarning"),
    ],
)
#: Those that several processes share.
SHARED_BACKENDS = ["local", REDIS, POSTGRES]
HISTORY_BACKENDS = ["process", *SHARED_BACKENDS]


@pytest.fixture(scope="module")
def redis_server() -> Iterator[Redis]:
    """A server that no test stops."""
    with Redis() as redis:
        yield redis


@pytest.fixture(scope="module")
def postgres_database() -> Iterator[Path]:
    """A server with the tables, which is one of this process's databases. Give its folder."""
    with postgres.postgres() as folder, postgres.database(DATABASE, postgres.entry(folder)):
        yield folder


@pytest.fixture
def history_entry(request: pytest.FixtureRequest, tmp_path: Path) -> HistoryEntry:
    """Give entries that no other test shares."""

    def entry(name: str) -> dict[str, Any]:
        own = {"PREFIX": os.urandom(8).hex(), "TIMEOUT": _TIMEOUT_S}
        if name == "redis":
            server: Redis = request.getfixturevalue("redis_server")
            return settings(server.url, **own)
        if name == "postgres":
            request.getfixturevalue("postgres_database")
            return {"BACKEND": "dwebsocket.groups.postgres", "DATABASE": DATABASE, **own}
        return {"BACKEND": f"dwebsocket.groups.{name}", "RUNTIME_DIR": str(tmp_path)}

    return entry


@contextmanager
def own_backends() -> Iterator[None]:
    """Use backends as projects do, in place of those for tests; end them then."""
    made = backends.Backends(backends.make)
    with backends.swapped(made):
        yield
    for backend in made._made.values():
        if isinstance(backend, PostgresBackend):
            backend.stop()
            listener = backend._listener
            eventually(lambda listener=listener: not listener.is_listening)
            connections[DATABASE].close()
            # The timer for slow publishers is due then, and ends with its thread.
            Clock().advance(_TIMEOUT_S)
