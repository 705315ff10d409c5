"""Servers whose socket cannot be had: a clean 501, and one error that names servers to use."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from support.raw_peer import RawPeer
from support.server import CACHE, GUNICORN_GTHREAD, Kind, Server
from support.unserved import error_of_501

if TYPE_CHECKING:
    from collections.abc import Callable

# Both are compiled for one Python.
FOLDER = CACHE / "unsupported" / sys.implementation.cache_tag

GRANIAN = Kind(
    "granian",
    "command",
    (
        "{python}", "-m", "granian", "--interface", "wsgi", "--no-log", "--port", "{port}",
        "--host", "127.0.0.1", "project.wsgi:application",
    ),
    folder=FOLDER / "granian",
)  # fmt: skip
BJOERN = Kind(
    "bjoern",
    "command",
    (
        "{python}",
        "-c",
        "import bjoern; from project.wsgi import application as app; "
        "bjoern.run(app, '127.0.0.1', {port})",
    ),
    folder=FOLDER / "bjoern",
)


@pytest.mark.parametrize("kind", [GRANIAN, BJOERN], ids=str)
def test_501(kind: Kind, own_server: Callable[..., Server]) -> None:
    """The client gets 501, the log one error that names the server; pages are served as ever."""
    server = own_server(kind)
    error = error_of_501(server, Connection="Upgrade")
    assert kind.name in error.lower()
    assert "gunicorn" in error
    assert "Traceback" not in server.stderr()


def test_http2_streams(own_server: Callable[..., Server]) -> None:
    """A stream of gunicorn's HTTP/2 is refused with that reason."""
    connection = pytest.importorskip("h2.connection")
    events = pytest.importorskip("h2.events")
    server = own_server(
        GUNICORN_GTHREAD,
        options=("--http-protocols", "h1,h2", "--http2-cleartext", "prior-knowledge"),
    )
    headers = [
        (":method", "GET"),
        (":path", "/echo/"),
        (":scheme", "http"),
        (":authority", "localhost"),
        # `Upgrade` and `Connection` do not exist in HTTP/2.
        ("sec-websocket-key", "MDEyMzQ1Njc4OWFiY2RlZg=="),
        ("sec-websocket-version", "13"),
    ]
    stream = connection.H2Connection()
    stream.initiate_connection()
    stream.send_headers(1, headers, end_stream=True)
    status, body, ended = None, b"", False
    with RawPeer(server.address) as peer:
        while not ended:
            peer.send(stream.data_to_send())
            data = peer.sock.recv(65536)
            assert data, "EOF within the response"
            for event in stream.receive_data(data):
                if isinstance(event, events.ResponseReceived):
                    status = dict(event.headers)[b":status"]
                elif isinstance(event, events.DataReceived):
                    body += event.data
                ended = ended or isinstance(event, events.StreamEnded)
    assert status == b"501"
    assert body == b"There are no WebSockets here.\n"
    assert "one of many HTTP/2 streams" in server.stderr()
