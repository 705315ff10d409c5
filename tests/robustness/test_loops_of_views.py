"""Event loops: those that sync views run themselves, and those that end under async views."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from support.raw_peer import RawPeer
from support.server import GUNICORN_EVENTLET, GUNICORN_GEVENT, GUNICORN_GTHREAD, UVICORN, Server

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
@pytest.mark.parametrize("middleware", [SYNC, [ASYNC, *SYNC], [*SYNC, ASYNC]])
def test_sync_view_runs_a_loop(own_server: Own, kind: object, middleware: list[str]) -> None:
    """With the ORM in it, also behind async middleware, whose loop and threads have gone on."""
    server = own_server(kind, settings={"MIDDLEWARE": middleware})
    with server.quiet():
        for _ in range(2):
            with RawPeer.open(server, "/database/runs-a-loop/") as peer:
                assert peer.read_message() == b"1"
                assert peer.read_to_eof().code == 1000
