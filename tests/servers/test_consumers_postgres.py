"""Consumers that ask PostgreSQL, all at once: few connections, as few threads have one."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import psycopg
import pytest

from support import postgres
from support.raw_peer import RawPeer
from support.selection import later
from support.server import ASGI, GUNICORN_GTHREAD, Kind, Server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.needs("postgresql")

KINDS = (GUNICORN_GTHREAD, *(kind for kind in ASGI if str(kind) == "uvicorn-dwebsocket"))
CONSUMERS = 110


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """A server that has fewer connections than there are consumers."""
    with postgres.postgres(max_connections=20) as folder:
        with psycopg.connect(f"host={folder} user=postgres", autocommit=True) as connection:
            connection.execute("CREATE TABLE auth_group (id serial PRIMARY KEY, name text)")
            connection.execute("INSERT INTO auth_group (name) VALUES ('one'), ('two')")
        yield folder


@pytest.mark.parametrize(("way", "threads"), [("acount", 1), *later(("sync", 1), ("acount", 4))])
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_many_ask_at_once(
    kind: Kind, way: str, threads: int, own_server: Callable[..., Server], folder: Path
) -> None:
    """By the ORM's async calls and by `database_sync_to_async`; each gets its answer."""
    server = own_server(
        kind,
        settings={
            "ROOT_URLCONF": "project.consumer_site",
            "DATABASES": {"default": postgres.entry(folder)},
            "WEBSOCKET_CHANNELS_THREADS": threads,
        },
    )
    with contextlib.ExitStack() as stack:
        count = stack.enter_context(postgres.counter(folder))
        peers = stack.enter_context(RawPeer.open_many(server, "/Counting/", CONSUMERS))
        before = count()
        for peer in peers:
            peer.send_text(way)
        most = 0
        for peer in peers:
            assert peer.read_message() == b"2"
            most = max(most, count())
    assert most - before <= threads
    assert server.stderr() == ""
