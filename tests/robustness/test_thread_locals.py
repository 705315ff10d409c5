"""Values that a view leaves in its thread are not seen by the views of other users."""

from __future__ import annotations

import pytest

from support.raw_peer import RawPeer
from support.server import GUNICORN_EVENTLET, GUNICORN_GEVENT, GUNICORN_GTHREAD, UVICORN, Server

KINDS = (GUNICORN_GTHREAD, GUNICORN_GEVENT, GUNICORN_EVENTLET, UVICORN)


@pytest.mark.parametrize("server", KINDS, indirect=True, ids=str)
@pytest.mark.parametrize("view", ["leaves-name", "async-leaves-name", "helper-leaves-name"])
def test_nothing_is_found(server: Server, view: str) -> None:
    """No middleware cleans up behind a view, as that of a project does behind a request."""
    for number in range(8):
        with RawPeer.open(server, f"/database/{view}/?name=user{number}") as peer:
            assert peer.read_message() == b"nobody"
            assert peer.read_frame().code == 1000
            # uvicorn waits ten seconds for a client that does not answer the close frame.
            peer.send_close(1000)
