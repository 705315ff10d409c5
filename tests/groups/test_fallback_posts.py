"""POSTs and polls that come to another process: passed on by Redis and PostgreSQL."""

# Fixtures are imported.
# ruff: noqa: F811

from __future__ import annotations

import json
import os
import signal
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any

import pytest
from postgres_nodes import folder  # noqa: F401

from support import postgres
from support.event_stream import Stream
from support.polling import Poller
from support.redis import Redis, settings
from support.selection import later
from support.server import GUNICORN_GEVENT, GUNICORN_GTHREAD, GUNICORN_SYNC, Kind, Server
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Own = Callable[..., Server]

each_kind = pytest.mark.parametrize(
    "kind", [GUNICORN_SYNC, GUNICORN_GTHREAD, GUNICORN_GEVENT], ids=str
)


def converse(server: Server) -> None:
    """Post to all workers, and poll them."""
    with Stream.open(server, "/fallback/at-most-1000/") as stream:
        for number in range(1, 21):
            assert stream.post("é" * number, b"\xff", n=number).status == 204
            assert stream.post("again", n=number).status == 204
        lengths = [stream.message() for _ in range(40)]
        assert lengths == [length for n in range(1, 21) for length in (f"{n}", "1")]
        assert stream.post("x" * 1001, n=21).status == 413
        assert stream.close_event()[0] == 1009
        assert stream.post("late", n=22).status == 410
    poller = Poller.open(server, "/fallback/echo/")
    for number in range(10):
        with poller.begin_poll() as held:
            poller.send(f"{number}")
            poller.take(held.read_response())
    # Larger than a notification of PostgreSQL.
    poller.send("é" * 20_000)
    assert [poller.message() for _ in range(11)] == [*map(str, range(10)), "é" * 20_000]
    poller.close(4000, "over")
    assert poller.close_event()[0] == 4000


@each_kind
@pytest.mark.needs("redis")
def test_by_redis(own_server: Own, kind: Kind) -> None:
    """Also while it is away for a moment."""
    with Redis() as redis:
        # A question that is lost with the server is waited for, and asked again.
        groups = {"default": settings(redis.url, TIMEOUT=2.0)}
        server = own_server(kind, options=("--workers", "2"), settings={"WEBSOCKET_GROUPS": groups})
        converse(server)
        with Stream.open(server, "/fallback/echo/") as stream:
            redis.kill()
            found = {stream.post("hi", n=1).status for _ in range(5)}
            # The process that has the stream needs no other one.
            assert found <= {204, 503}
            redis.start()
            eventually(lambda: stream.post("hi", n=1).status == 204)
            assert stream.message() == "hi"


@each_kind
@pytest.mark.needs("postgresql")
@pytest.mark.xdist_group("groups postgres")
@pytest.mark.parametrize("atomic", [True, *later(False)], ids=["ATOMIC_REQUESTS", ""])
def test_by_postgres(own_server: Own, kind: Kind, folder: Path, atomic: bool) -> None:
    """Also in a transaction, whose commit would be too late."""
    changed: dict[str, Any] = {
        "DATABASES": {"default": postgres.entry(folder, ATOMIC_REQUESTS=atomic)},
        "SESSION_ENGINE": "django.contrib.sessions.backends.signed_cookies",
        "WEBSOCKET_GROUPS": {"default": {"BACKEND": "dwebsocket.groups.postgres", "TIMEOUT": 20}},
    }
    converse(own_server(kind, options=("--workers", "2"), settings=changed))


def ask(page: Stream, **request: Any) -> Any:
    """Ask for something in a room, and give the answer."""
    page.send(json.dumps({"id": 1, **request}))
    while "id" not in (answer := json.loads(page.message())):
        pass
    return answer["ok"]


def test_the_process_of_a_page_in_rooms_dies(own_server: Own) -> None:
    """Others see it leave, and it comes back to another process, with what it has missed."""
    room = "sync-1"
    kept = {"sync-*": {"size": 100, "seconds": 300}}
    groups = {"default": {"HISTORY": kept, "PRESENCE": {"sync-*": {"grace": 0.1}}}}
    settings = {"WEBSOCKET_GROUPS": groups}
    server = own_server(GUNICORN_GTHREAD, options=("--workers", "2"), settings=settings)
    with ExitStack() as stack:

        def come(**more: Any) -> tuple[Stream, Any]:
            page = stack.enter_context(Stream.open(server, "/live-rooms/sync/"))
            return page, ask(page, join=room, **more)

        def process_of(page: Stream) -> int:
            return ask(page, to=room, event="pid")

        page, answer = come()
        process = process_of(page)
        other = page
        while process_of(other) == process:
            other, _ = come()
        os.kill(process, signal.SIGKILL)
        with suppress(ConnectionResetError):
            while page.event()[0] != "end":
                pass
        while "left" not in json.loads(other.message()):
            pass
        eventually(lambda: page.post("{}").status == 410)
        ask(other, to=room, event="say", data="missed")
        page, answer = come(since=answer["position"])
        assert (answer["recovered"], answer["missed"], answer["count"]) == (True, 1, 2)
        assert json.loads(page.message())["data"] == '"missed"'
