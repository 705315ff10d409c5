"""
Workers that are replaced or die while clients talk to consumers, and come back.

A consumer acknowledges a message when it has written it down, by its group of the channel layer.
Each acknowledged message is there once, and each `disconnect` was called once, with the code that
the client was sent away with.
"""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest

from support.consumers import PATHS, RELOADED, SETTINGS, ends_of_all, held, kept, new_id
from support.returning import Client, Crowd, crowd
from support.server import TIME_TO_END, Kind, Server, is_running
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.raw_peer import RawPeer

    Own = Callable[..., Server]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.extended("reloads servers, under load"),
]

CLIENTS = 40
# What a worker's end, and that of the site, say.
ENDS = {1001, 1012}
# The code of a connection that ends without one.
LOST = 1006
# Seconds that a busy machine may take.
SLACK_S = 60
TWO = ("--workers", "2")


class KeepingClient(Client):
    """Has each message written down, and notes which were acknowledged."""

    def __init__(self, *args: object) -> None:
        super().__init__(*args)  # type: ignore[arg-type]
        self.numbers = 0
        self.acknowledged: list[str] = []
        # The connections that were open, by the name that their consumers note.
        self.opened: list[str] = []

    def come(self, path: str) -> RawPeer | None:
        """Name the connection."""
        name = new_id()
        peer = super().come(f"{path}?id={name}")
        if peer is not None:
            self.opened.append(name)
        return peer

    def talk(self, peer: RawPeer) -> int | None:
        """Talk, until the server closes or is gone: then there is no close frame."""
        try:
            return super().talk(peer)
        except AssertionError:
            if not peer.eof or peer.buffer:
                raise
            return LOST

    def next_text(self) -> str:
        """Give a message that is sent once."""
        self.numbers += 1
        return f"keep {self.opened[-1]}/{self.numbers}"

    def on_answer(self, text: str, answer: str) -> None:
        """Note that it was acknowledged, in its turn."""
        kept = text.partition(" ")[2]
        assert answer == f"kept {kept}"
        self.acknowledged.append(kept)


def assert_none_is_lost(server: Server, clients: Crowd[KeepingClient]) -> None:
    """Fail unless each acknowledged message is there once, and no other twice."""
    counts = kept(server)
    for client in clients.clients:
        assert client.acknowledged
        assert [it for it in client.acknowledged if counts[it] != 1] == []
    assert max(counts.values()) == 1


def assert_all_are_told(server: Server, clients: Crowd[KeepingClient]) -> None:
    """Fail unless each consumer's `disconnect` is called once, with the code of its client."""

    def told() -> dict[str, list[int]]:
        return ends_of_all(server)

    # The codes are in the order of the connections; a client that stops closes the last one itself.
    expected = {
        name: [1000 if code is None else code]
        for client in clients.clients
        for name, code in zip(client.opened, client.codes, strict=True)
    }
    eventually(lambda: told().keys() >= expected.keys(), what="all consumers are told")
    seen = told()
    assert {name: seen[name] for name in expected} == expected


def assert_nothing_is_left(server: Server) -> None:
    """Fail unless the workers that serve now have nothing of their consumers any more."""

    def is_empty() -> bool:
        counts = held(server)
        return not any(counts[it] for it in ("connections", "permits", "consumers", "groups"))

    # Each worker, as a rule: which one answers is up to the system.
    for _ in range(4):
        eventually(is_empty, what="nothing is left of the consumers")


def assert_calm(server: Server) -> None:
    """Fail when the log has more than what gunicorn says about a worker that was killed."""
    log = server.stderr()
    for word in ("Traceback", "panicked", "Fatal", "SIGABRT"):
        assert word not in log, log


def replaced(server: Server, old: list[int], count: int) -> None:
    """Wait until none of these is there, and so many others are."""
    eventually(lambda: not any(is_running(pid) for pid in old), SLACK_S, "the old ones are gone")
    eventually(lambda: len(server.workers()) == count, SLACK_S, "the new ones are there")


def busiest_first(server: Server) -> list[int]:
    """
    Give the workers, beginning with the one that serves the most clients.

    The kernel need not share connections out evenly: a worker may have none.
    """
    return sorted(server.workers(), key=lambda pid: -len(os.listdir(f"/proc/{pid}/fd")))


@pytest.mark.every("as test_reloads.py, through a consumer")
@pytest.mark.parametrize("kind", RELOADED, ids=str)
def test_three_reloads_under_load(kind: Kind, own_server: Own) -> None:
    """Each client gets 1012 or 1001, comes back, and is served by a new worker."""
    settings = {**SETTINGS, "WEBSOCKET_DRAIN": 1}
    server = own_server(kind, options=TWO, settings=settings, env=TIME_TO_END)
    with crowd(server, CLIENTS, *PATHS, client=KeepingClient) as clients:
        for _ in range(3):
            old = server.workers()
            server.send_signal(signal.SIGHUP)
            replaced(server, old, 2)
            clients.all_talk()
    assert clients.codes() <= ENDS
    assert_none_is_lost(server, clients)
    assert_all_are_told(server, clients)
    assert_nothing_is_left(server)
    assert_calm(server)


@pytest.mark.parametrize("kind", RELOADED, ids=str)
def test_a_worker_that_is_killed(kind: Kind, own_server: Own) -> None:
    """Its clients see the end, and come back; those of the other one see nothing of it."""
    server = own_server(kind, options=TWO, settings=SETTINGS)
    with crowd(server, CLIENTS, *PATHS, client=KeepingClient) as clients:
        eventually(lambda: len(server.workers()) == 2)
        victim, other = busiest_first(server)
        os.kill(victim, signal.SIGKILL)
        replaced(server, [victim], 2)
        clients.all_talk()
        assert other in server.workers()
    assert clients.codes() == {LOST}
    assert_none_is_lost(server, clients)
    assert_nothing_is_left(server)
    assert_calm(server)


@pytest.mark.parametrize("kind", RELOADED, ids=str)
def test_a_worker_that_is_terminated(kind: Kind, own_server: Own) -> None:
    """Its clients get a close frame, its consumers their end; the other one goes on."""
    server = own_server(kind, options=TWO, settings=SETTINGS, env=TIME_TO_END)
    with crowd(server, CLIENTS, *PATHS, client=KeepingClient) as clients:
        eventually(lambda: len(server.workers()) == 2)
        victim, other = busiest_first(server)
        os.kill(victim, signal.SIGTERM)
        replaced(server, [victim], 2)
        clients.all_talk()
        assert other in server.workers()
    assert clients.codes() <= ENDS
    assert_none_is_lost(server, clients)
    assert_all_are_told(server, clients)
    assert_nothing_is_left(server)
    assert_calm(server)
