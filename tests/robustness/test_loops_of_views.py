"""Event loops: those that sync views run themselves, and those that end under async views."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from support.raw_peer import RawPeer
from support.selection import later
from support.server import (
    ASGI,
    GUNICORN_EVENTLET,
    GUNICORN_GEVENT,
    GUNICORN_GTHREAD,
    RUNSERVER,
    UVICORN,
    Server,
)

pytestmark = pytest.mark.extended("tries each kind of loop beside each kind of middleware")

Own = Callable[..., Server]

KINDS = (GUNICORN_GTHREAD, GUNICORN_GEVENT, GUNICORN_EVENTLET, UVICORN)
on_each = pytest.mark.parametrize("kind", KINDS, ids=str)

SYNC = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "dwebsocket.middleware.WebSocketMiddleware",
]
ASYNC = "project.middleware.only_async"


@on_each
@pytest.mark.parametrize("middleware", [[ASYNC, *SYNC], *later(SYNC, [*SYNC, ASYNC])])
def test_sync_view_runs_a_loop(own_server: Own, kind: object, middleware: list[str]) -> None:
    """With the ORM in it, also behind async middleware, whose loop and threads have gone on."""
    server = own_server(kind, settings={"MIDDLEWARE": middleware})
    with server.quiet():
        for _ in range(2):
            with RawPeer.open(server, "/database/runs-a-loop/") as peer:
                assert peer.read_message() == b"1"
                assert peer.read_to_eof().code == 1000


# Those of the others end their loops in the same ways.
ENDING = (*(kind for kind in ASGI if kind.name in ("uvicorn-uvloop", "hypercorn")), UVICORN)


@pytest.mark.parametrize("kind", [*ENDING, GUNICORN_GTHREAD, RUNSERVER], ids=str)
@pytest.mark.parametrize("query", ["", "?orm"])
def test_loop_ends_under_async_views(own_server: Own, kind: object, query: str) -> None:
    """Views that still run at the end of the process are no errors, and their callbacks run."""
    server = own_server(kind, env={"PROJECT_TIME_TO_END": "4"})
    with RawPeer.open_many(server, f"/database/async-goes-on/{query}", 5) as peers:
        assert all(peer.read_message().isdigit() for peer in peers)
        server.send_signal(server.end_signal)
        assert {peer.read_to_eof().code for peer in peers} <= {1001, 1012}
    server.wait(60)
    for unwanted in ("Traceback", "Task was destroyed", "never awaited", "Internal Server Error"):
        assert unwanted not in server.stderr()
    assert server.stdout().count("async callback") == 5
    assert server.stdout().count("callback") == 10
