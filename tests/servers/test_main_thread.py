"""Views that run on the main thread of a server: within a project's own middleware."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

from support.raw_peer import RawPeer
from support.server import GUNICORN_SYNC, RUNSERVER_NOTHREADING, Kind, Server

if TYPE_CHECKING:
    from collections.abc import Callable


MIDDLEWARE = [
    "django.middleware.common.CommonMiddleware",
    "project.own_middleware.OwnMiddleware",
]


@pytest.mark.parametrize("kind", [GUNICORN_SYNC, RUNSERVER_NOTHREADING], ids=str)
def test_handlers_of_signals_run_while_a_view_waits(
    kind: Kind, own_server: Callable[..., Server]
) -> None:
    """The view's own handler, and then the server's: the client gets a close frame."""
    server = own_server(kind, settings={"MIDDLEWARE": MIDDLEWARE})
    with RawPeer.open(server, "/own/alarm/") as peer:
        # The client has sent nothing: the wait alone lets the handler run. The view's first wait
        # would end after three seconds.
        assert [peer.read_message() for _ in range(20)] == [b"from a handler of SIGALRM"] * 20
        server.send_signal(signal.SIGTERM)
        assert peer.read_to_eof().code in (1001, 1012)
    server.wait(60)
