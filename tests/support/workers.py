"""Several workers of one server, which compete for connections: how all of them get some."""

from __future__ import annotations

from typing import TYPE_CHECKING

from support.raw_peer import RawPeer
from support.server import thread_names
from support.waiting import eventually

if TYPE_CHECKING:
    import contextlib

    from support.server import Server

ENGINE = "dwebsocket"


def connected_to_each(server: Server, stack: contextlib.ExitStack) -> list[RawPeer]:
    """Open connections until each worker has had one, and so has an engine: exactly one."""
    peers: list[RawPeer] = []

    def all_have_an_engine() -> bool:
        peers.extend(stack.enter_context(RawPeer.open_many(server, "/echo/", 20)))
        return all(thread_names(pid).count(ENGINE) == 1 for pid in server.workers())

    eventually(all_have_an_engine, 60)
    return peers


def connected_by_worker(
    server: Server, stack: contextlib.ExitStack, count: int
) -> dict[int, list[RawPeer]]:
    """Open connections until each worker has `count`; give them by the worker's process."""
    peers: dict[int, list[RawPeer]] = {pid: [] for pid in server.workers()}
    while any(len(ours) < count for ours in peers.values()):
        peer = stack.enter_context(RawPeer.open(server, "/own-pid/"))
        peers[int(peer.read_message())].append(peer)
    return peers


def echoes_to_all(peers: list[RawPeer]) -> None:
    """Each gets its own message back."""
    for number, peer in enumerate(peers):
        peer.send_text(str(number))
    assert [peer.read_message() for peer in peers] == [b"%d" % n for n in range(len(peers))]
