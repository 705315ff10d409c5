"""Middleware of a project's own that opens WebSockets: views run in the server's worker."""

from __future__ import annotations

import pytest

from support.raw_peer import RawPeer, handshake_request
from support.server import (
    ASGI,
    GUNICORN_EVENTLET,
    GUNICORN_GEVENT,
    GUNICORN_GTHREAD,
    GUNICORN_SYNC,
    RUNSERVER,
    Server,
)
from support.waiting import eventually
from support.wsgi_kinds import (
    CHEROOT,
    UWSGI_GEVENT,
    UWSGI_HTTP_SOCKET,
    UWSGI_ONE_THREAD,
    UWSGI_ROUTER,
    WAITRESS,
    WERKZEUG,
)

KINDS = (
    *(RUNSERVER, GUNICORN_SYNC, GUNICORN_GTHREAD, GUNICORN_GEVENT, GUNICORN_EVENTLET),
    *(WERKZEUG, CHEROOT, WAITRESS),
    *(UWSGI_HTTP_SOCKET, UWSGI_ONE_THREAD, UWSGI_ROUTER, UWSGI_GEVENT),
    *ASGI,
)
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    # uWSGI needs the Content-Length that it sets, to keep connections in order.
    "django.middleware.common.CommonMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "project.own_middleware.OwnMiddleware",
]

# Django runs the async view of a worker in a loop that is on the thread of all green ones.
ON_GREEN_THREADS = {GUNICORN_GEVENT, GUNICORN_EVENTLET, UWSGI_GEVENT}

pytestmark = [
    pytest.mark.parametrize("server", KINDS, indirect=True, ids=str),
    pytest.mark.extended("starts a server of each kind for it"),
]


@pytest.fixture
def site_settings() -> dict[str, object]:
    """The project behind that middleware."""
    return {"MIDDLEWARE": MIDDLEWARE}


def paths(server: Server) -> list[str]:
    """Give the views behind it that talk: sync and async, decorated and not, and a detached one."""
    sync = ["/own/echo/", "/own/decorated/", "/echo/"]
    return sync if server.kind in ON_GREEN_THREADS else [*sync, "/own/async-echo/"]


def talk(server: Server, path: str) -> None:
    """Echo one message, and see the end after it."""
    with RawPeer.open(server, path) as peer:
        peer.send_text("hello")
        assert peer.read_message() == b"hello"
        if path != "/own/decorated/":
            peer.send_close(1000)
        # Not to the end of the stream: some servers then hang up in a hurry.
        assert peer.read_frame().code == 1000


def test_conversation(server: Server) -> None:
    """All kinds of views, and pages between."""
    with server.quiet():
        for path in paths(server):
            talk(server, path)
            page = server.get("/own/echo/")
            assert (page.status, page.body) == (200, b"a page")


def test_nothing_is_left(server: Server) -> None:
    """Of ends by the client, by the view, by an exception, and without a close frame."""

    def all_but_one() -> None:
        for path in paths(server):
            talk(server, path)
        with RawPeer.open(server, "/own/raises/") as peer:
            peer.send_text("now")
            assert peer.read_frame().code == 1000

    # The server keeps threads of its first async view and its first error.
    all_but_one()
    with server.nothing_left():
        all_but_one()
        with RawPeer.open(server, "/own/echo/") as peer:
            peer.send_text("hello")
            assert peer.read_message() == b"hello"
    assert server.get("/own/echo/").body == b"a page"


def test_a_large_response_keeps_no_worker(server: Server) -> None:
    """The response goes nowhere, and the worker is free at once."""
    with server.quiet():
        for _ in range(3):
            with RawPeer.open(server, "/own/large/") as peer:
                peer.send_text("now")
                assert peer.read_frame().code == 1000
        assert server.get("/own/echo/").body == b"a page"


def test_refusal(server: Server) -> None:
    """A page of another site gets 403, the view is not called; a malformed handshake gets 400."""
    refused = {"Origin": "http://evil.example"}, {"Sec-WebSocket-Key": "short"}
    for headers, status in zip(refused, (403, 400), strict=True):
        with RawPeer(server.address) as peer:
            peer.send(handshake_request("/own/echo/", server.host, headers=headers))
            assert peer.read_response().status == status
    eventually(lambda: "refused with 403" in server.stderr(), what="the refusal in the log")
    assert server.get("/own/echo/").body == b"a page"
