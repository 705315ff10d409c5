"""Consumers under eventlet: async ones run, sync ones are refused before they stop the server."""

from __future__ import annotations

import pytest

from support.raw_peer import RawPeer, handshake_request
from support.server import EVENTLET_PATCHED, GUNICORN_EVENTLET, Server
from support.waiting import eventually

pytestmark = pytest.mark.parametrize(
    "server", [GUNICORN_EVENTLET, EVENTLET_PATCHED], indirect=True, ids=str
)


@pytest.fixture
def site_settings() -> dict[str, object]:
    """The project with consumers."""
    return {
        "ROOT_URLCONF": "project.consumer_site",
        "CHANNEL_LAYERS": {"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}},
    }


@pytest.mark.parametrize("path", ["/AsyncEcho/", "/application/", "/AsyncGrouped/"])
def test_async_consumers(server: Server, path: str) -> None:
    """They talk, also by groups."""
    with server.quiet(), RawPeer.open(server, path) as peer:
        peer.send_text("hello")
        assert peer.read_message() == b"hello"


@pytest.mark.parametrize("path", ["/Echo/", "/Listed/"])
def test_sync_consumers(server: Server, path: str) -> None:
    """500, and the log says what to do; the server goes on."""
    before = len(server.stderr())
    with RawPeer(server.address) as peer:
        peer.send(handshake_request(path, server.host))
        assert peer.read_response().status == 500
    eventually(lambda: "make it async, or use gevent or threads" in server.stderr()[before:])
    with RawPeer.open(server, "/AsyncEcho/") as peer:
        peer.send_text("hello")
        assert peer.read_message() == b"hello"
