"""
Handshakes to async views on gevent and eventlet, beside all else that runs on the same thread.

While an event loop runs on a green thread, Python takes every other green thread of that thread of
the system for async code, and Django forbids it the database.
"""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING

import pytest

from support.raw_peer import RawPeer, handshake_request
from support.server import GREEN, Server
from support.users import sign_in

if TYPE_CHECKING:
    from collections.abc import Iterator

everywhere = pytest.mark.parametrize("server", GREEN, indirect=True, ids=str)

USERS_VIEWS = ("async-user", "async-below-login-required", "async-below-own-decorator")


@contextlib.contextmanager
def pages(server: Server, path: str) -> Iterator[set[int]]:
    """Ask for a page again and again meanwhile; gives the statuses of the answers."""
    statuses: set[int] = set()
    is_over = threading.Event()

    def ask() -> None:
        while not is_over.is_set():
            statuses.add(server.get(path).status)

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        yield statuses
    finally:
        is_over.set()
        asking.join()


@everywhere
class TestHandshakesToAsyncViews:
    """They go through Django's sync handler, which runs an event loop for each."""

    def test_others_go_on_with_the_database(self, server: Server) -> None:
        """Neither a sync view nor a page is taken for async code, nor is another handshake."""
        with (
            server.quiet(),
            RawPeer.open_many(server, "/database/counts-on/", 20) as counting,
            pages(server, "/database/counts/") as statuses,
        ):
            for _ in range(3):
                with RawPeer.open_many(server, "/async-echo/", 20, at_once=20) as peers:
                    for peer in peers:
                        peer.send_text("hello")
                    assert {peer.read_message() for peer in peers} == {b"hello"}
                assert all(peer.read_message().isdigit() for peer in counting)
        assert statuses == {200}

    @pytest.mark.parametrize("view", USERS_VIEWS)
    def test_of_signed_in_users(self, server: Server, view: str) -> None:
        """The user is looked up by the decorator above, by ours, and by the view."""
        mine = sign_in(server)
        with server.quiet(), contextlib.ExitStack() as stack:
            peers = [stack.enter_context(RawPeer(server.address)) for _ in range(10)]
            for peer in peers:
                peer.send(handshake_request(f"/database/{view}/", server.host, headers=mine))
            assert {peer.read_response().status for peer in peers} == {101}
            assert {peer.read_message() for peer in peers} == {b"mia"}
