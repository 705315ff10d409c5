"""Sockets that are silent while the server answers pages, and still there afterwards."""

from __future__ import annotations

from typing import TYPE_CHECKING

from support.waiting import pause

if TYPE_CHECKING:
    from support.raw_peer import RawPeer
    from support.server import Server

PAGE_EVERY_S = 0.5


def outlive(server: Server, peers: list[RawPeer], pages: int) -> None:
    """Leave `peers` idle for that many pages, one every half second; then all of them echo."""
    for _ in range(pages):
        pause(PAGE_EVERY_S)
        assert server.get("/echo/").status == 200
    for number, peer in enumerate(peers):
        peer.send_text(f"after the pause {number}")
    for number, peer in enumerate(peers):
        assert peer.read_message().decode() == f"after the pause {number}"
