"""The backends whose groups have presence in several processes, for tests over all of them."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
from history_backends import redis_server
from postgres_nodes import folder

from support import postgres
from support.redis import settings

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["PRESENCE_BACKENDS", "PresenceEntry", "folder", "presence_entry", "redis_server"]

#: Gives the entry of WEBSOCKET_GROUPS for a backend, without PRESENCE, and DATABASES.
PresenceEntry = Callable[[str], tuple[dict[str, Any], dict[str, Any]]]

# What is told between processes is one protocol; who notices the end of one is the backend's.
CORE = pytest.mark.core(
    "test_every_process_knows_all_users",
    "test_many_users_at_once",
    "test_coming_back_within_the_grace",
    "test_a_killed_process",
)
PRESENCE_BACKENDS = [
    "local",
    pytest.param("redis", marks=[pytest.mark.needs("redis"), CORE]),
    pytest.param("postgres", marks=pytest.mark.needs("postgresql")),
]


@pytest.fixture
def presence_entry(request: pytest.FixtureRequest, tmp_path: Path) -> PresenceEntry:
    """Give entries that no other test shares. TIMEOUT is one that a busy machine does not reach."""

    def entry(name: str) -> tuple[dict[str, Any], dict[str, Any]]:
        own = {"PREFIX": os.urandom(8).hex(), "TIMEOUT": 20.0}
        if name == "redis":
            return settings(request.getfixturevalue("redis_server").url, **own), {}
        if name == "postgres":
            databases = {"default": postgres.entry(request.getfixturevalue("folder"))}
            return {"BACKEND": "dwebsocket.groups.postgres", **own}, databases
        return {
            "BACKEND": name if "." in name else f"dwebsocket.groups.{name}",
            "RUNTIME_DIR": str(tmp_path),
            **own,
        }, {}

    return entry
