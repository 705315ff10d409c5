"""Processes that have no place for connections of others: those go to the next one, or end."""

from __future__ import annotations

import contextlib
import resource
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from handover.test_gunicorn import PATIENT, SETTINGS, SLACK_S, talk
from support.raw_peer import CLOSE, RawPeer, close_payload
from support.server import GUNICORN_GTHREAD
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from support.server import Server

    Own = Callable[..., Server]

# A process without an heir ends so long after it was told to.
SOON = ("--timeout", "300", "--graceful-timeout", "8")


@contextlib.contextmanager
def in_each(server: Server, count: int) -> Iterator[dict[int, list[RawPeer]]]:
    """Open so many connections to each process; give them by process."""
    found: dict[int, list[RawPeer]] = {pid: [] for pid in server.workers()}
    with contextlib.ExitStack() as stack:

        def are_open() -> bool:
            try:
                peer = stack.enter_context(RawPeer.open(server, "/counting/"))
            except AssertionError:
                # One that was closed just now has still its place.
                return False
            _, process, _ = talk(peer, "here")
            if len(found[process]) < count:
                found[process].append(peer)
            else:
                peer.close()
            return all(len(peers) == count for peers in found.values())

        eventually(are_open, SLACK_S, "each process has its connections")
        yield found


def oldest_first(server: Server) -> list[int]:
    """Give the workers in the order in which they were started."""
    return sorted(server.workers())


def test_where_places_are_taken_the_next_one_is_asked_and_then_the_client_told(
    own_server: Own,
) -> None:
    """By ``WEBSOCKET_MAX_CONNECTIONS``; gunicorn ends the oldest worker at ``TTOU``."""
    settings = {**SETTINGS, "WEBSOCKET_MAX_CONNECTIONS": 4}
    server = own_server(GUNICORN_GTHREAD, options=("--workers", "3", *SOON), settings=settings)
    with in_each(server, 3) as peers:
        # Some may have been refused until each process had its connections.
        refused = server.stderr().count("are taken")
        first, second, third = oldest_first(server)
        server.send_signal(signal.SIGTTOU)
        eventually(lambda: first not in server.workers(), SLACK_S, "a worker is gone")
        # One place is left in each of the others.
        told, moved = 0, []
        for peer in peers[first]:
            peer.send_text("there?")
            try:
                moved.append(int(peer.read_message().split()[1]))
            except AssertionError:
                told += 1
        assert sorted(moved) == sorted((second, third))
        assert told == 1
        assert "not handed over: no other process took them in time" in server.stderr()
        # No client is refused by a move.
        assert server.stderr().count("are taken") == refused
        for pid in (second, third):
            for peer in peers[pid]:
                assert talk(peer, "still here")[1:] == (pid, 0)


def test_where_descriptors_are_lacking_the_next_one_is_asked(own_server: Own) -> None:
    """And the one without them goes on with its own."""
    server = own_server(GUNICORN_GTHREAD, options=("--workers", "3", *PATIENT), settings=SETTINGS)
    with in_each(server, 3) as peers:
        first, second, third = oldest_first(server)
        leave_descriptors(third, 1)
        server.send_signal(signal.SIGTTOU)
        eventually(lambda: first not in server.workers(), SLACK_S, "a worker is gone")
        for peer in peers[first]:
            assert talk(peer, "there?")[1:] == (second, 1)
        for pid in (second, third):
            for peer in peers[pid]:
                assert talk(peer, "still here")[1:] == (pid, 0)


@pytest.mark.parametrize(
    ("path", "thread"),
    [
        ("/counting/", "dwebsocket-handler"),
        ("/async-counting/", "dwebsocket-loop"),
        ("/mixed-counting/", "dwebsocket-handler"),
        ("/ticking/", "dwebsocket-callbacks"),
    ],
)
def test_where_threads_are_lacking_nothing_is_given_up_before_the_end(
    own_server: Own, path: str, thread: str
) -> None:
    """An heir without a thread for the handler says so first: it could only close what it gets."""
    server = own_server(GUNICORN_GTHREAD, options=("--workers", "2", *SOON), settings=SETTINGS)
    eventually(lambda: len(server.workers()) == 2, SLACK_S, "both workers")
    first, second = oldest_first(server)
    page = f"/refuse-threads/?process={second}&name={thread}"
    eventually(lambda: server.get(page).body == str(second).encode(), SLACK_S, "it gets none")
    peers: list[RawPeer] = []
    with contextlib.ExitStack() as stack:

        def are_open() -> bool:
            # The one without threads refuses it.
            with contextlib.suppress(AssertionError):
                peer = stack.enter_context(RawPeer.open(server, path))
                if process_of(peer) == first:
                    peers.append(peer)
                else:
                    peer.close()
            return len(peers) == 3

        eventually(are_open, SLACK_S, "the first one has connections")
        server.send_signal(signal.SIGTTOU)
        eventually(lambda: first not in server.workers(), SLACK_S, "a worker is gone")
        for peer in peers:
            while (frame := peer.read_frame()).opcode != CLOSE:
                assert frame.payload.startswith(b"tick ")
            assert frame.payload[:2] == close_payload(1012)
        assert "not handed over: no other process took them in time" in server.stderr()


def process_of(peer: RawPeer) -> int:
    """Give the process that answers, between its ticks."""
    peer.send_text("here")
    while (message := peer.read_message()).startswith(b"tick "):
        pass
    process = int(message.split()[1])
    while peer.read_message() != b"here":
        pass
    return process


def leave_descriptors(pid: int, count: int) -> None:
    """Have a process get so many descriptors at most."""
    used = {int(entry.name) for entry in Path(f"/proc/{pid}/fd").iterdir()}
    limit = 0
    while count or limit in used:
        count -= limit not in used
        limit += 1
    _, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (limit, hard))
