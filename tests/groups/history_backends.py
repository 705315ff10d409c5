"""The backends that keep the history of groups, for tests over all of them."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from support.redis import Redis, settings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

#: Gives the entry of WEBSOCKET_GROUPS for a backend, without HISTORY.
HistoryEntry = Callable[[str], dict[str, Any]]

HISTORY_BACKENDS = [
    "local",
    "process",
    pytest.param("redis", marks=pytest.mark.needs("redis")),
]


@pytest.fixture(scope="module")
def redis_server() -> Iterator[Redis]:
    """A server that no test stops."""
    with Redis() as redis:
        yield redis


@pytest.fixture
def history_entry(request: pytest.FixtureRequest, tmp_path: Path) -> HistoryEntry:
    """Give entries that no other test shares."""

    def entry(name: str) -> dict[str, Any]:
        if name == "redis":
            server: Redis = request.getfixturevalue("redis_server")
            return settings(server.url, PREFIX=os.urandom(8).hex(), TIMEOUT=20.0)
        return {"BACKEND": f"dwebsocket.groups.{name}", "RUNTIME_DIR": str(tmp_path)}

    return entry
