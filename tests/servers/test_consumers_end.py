"""The end of a process with consumers: clients are told, and `disconnect` is called."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest

from support.raw_peer import RawPeer
from support.server import (
    ASGI,
    GEVENT_PATCHED,
    GUNICORN_GEVENT,
    GUNICORN_GTHREAD,
    GUNICORN_SYNC,
    RUNSERVER,
    TIME_TO_END,
    Kind,
    Server,
)
from support.wsgi_kinds import UWSGI_HTTP_SOCKET, WAITRESS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

# granian cuts some connections at once: docs/servers/asgi.md.
KINDS = (
    *(RUNSERVER, GUNICORN_SYNC, GUNICORN_GTHREAD, GUNICORN_GEVENT, GEVENT_PATCHED),
    *(UWSGI_HTTP_SOCKET, WAITRESS),
    *(kind for kind in ASGI if kind.name != "granian"),
)
pytestmark = pytest.mark.extended("ends a process for each server")
SETTINGS = {
    "ROOT_URLCONF": "project.consumer_site",
    "CHANNEL_LAYERS": {"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}},
}


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_the_process_ends(kind: Kind, own_server: Callable[..., Server], tmp_path: Path) -> None:
    """By itself, with no traceback; each consumer has had time for its `disconnect`."""
    server = own_server(kind, settings=SETTINGS, env=TIME_TO_END)
    noted = tmp_path / "ends"
    with contextlib.ExitStack() as stack:
        writing = [stack.enter_context(RawPeer.open(server, "/writing/")) for _ in range(5)]
        others = [
            stack.enter_context(RawPeer.open(server, path))
            for path in ("/Echo/", "/AsyncEcho/", "/application/", "/Listed/")
        ]
        for peer in writing:
            peer.send_text(str(noted))
            assert peer.read_message() == b"noted"
        server.at_rest()
        server.send_signal(server.end_signal)
        codes = {peer.read_to_eof().code for peer in [*writing, *others]}
        assert codes == {1001}, codes
    server.wait(60)
    assert "Traceback" not in server.stderr()
    assert len(noted.read_text().split()) == 5
