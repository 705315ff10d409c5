"""Handlers when their process ends, is reloaded, or is forked: as views behave."""

from __future__ import annotations

import collections
import contextlib
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from support.raw_peer import RawPeer
from support.selection import later
from support.server import (
    ASGI,
    GREEN,
    GUNICORN_EVENTLET,
    GUNICORN_GEVENT,
    GUNICORN_GTHREAD,
    GUNICORN_SYNC,
    MAIN,
    Kind,
    Server,
    is_running,
)
from support.waiting import eventually
from support.wsgi_kinds import UWSGI_GEVENT, UWSGI_HTTP_SOCKET, WSGI_SERVERS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

VIEWS = ("view", "async view")
HANDLERS = (
    *("idle", "async idle", "mixed idle", "ticking", "async ticking"),
    *("busy", "async busy"),
)
EACH = 3
# A limit for a hang, not a measurement.
HANG_S = 60


@contextlib.contextmanager
def in_all_states(server: Server) -> Iterator[dict[str, list[RawPeer]]]:
    """Hold connections to handlers and views: quiet ones, ticking ones, busy ones."""
    with contextlib.ExitStack() as stack:
        peers = {
            kind: stack.enter_context(
                RawPeer.open_many(server, f"/handlers/ends/{kind.replace(' ', '-')}/", EACH)
            )
            for kind in (*VIEWS, *HANDLERS)
        }
        for peer in (peer for ours in peers.values() for peer in ours):
            peer.send_text("go")
        for peer in (peer for ours in peers.values() for peer in ours):
            assert peer.read_message()
        yield peers


def noted(server: Server) -> dict[str, collections.Counter[int]]:
    """Return how often each close code was noted by each kind of handler and view."""
    path = Path(f"{server.database}.ends")
    found: dict[str, collections.Counter[int]] = collections.defaultdict(collections.Counter)
    for line in path.read_text().splitlines() if path.exists() else ():
        kind, _, code = line.rpartition(" ")
        found[kind][int(code)] += 1
    return found


def _code(server: Server, peer: RawPeer) -> int | None:
    end = peer.read_to_eof()
    # daphne hangs up without reading the client's answer to its close frame.
    return end.frames[-1].code if end.reset and str(server.kind) == "daphne" else end.code


def assert_ends(server: Server, peers: dict[str, list[RawPeer]], code: int) -> None:
    """Clients of handlers get what those of views get, and `disconnect` is called with that."""
    codes = {kind: {_code(server, peer) for peer in ours} for kind, ours in peers.items()}
    assert set().union(*codes.values()) == {code}, codes
    found = eventually(
        lambda: (
            (ends := noted(server))
            and all(ends[kind].total() == EACH for kind in (*VIEWS, *HANDLERS))
            and ends
        ),
        HANG_S,
        "the ends of all are noted",
    )
    assert {each for kind in (*VIEWS, *HANDLERS) for each in found[kind]} == {code}, found


@pytest.mark.requires("close at exit")
@pytest.mark.parametrize("kind", [*MAIN, *GREEN, *WSGI_SERVERS, *ASGI], ids=str)
def test_the_process_ends(kind: Kind, own_server: Callable[..., Server]) -> None:
    """In the usual time, with the same closes as for views, and no traceback."""
    server = own_server(kind)
    with in_all_states(server) as peers:
        server.at_rest()
        server.send_signal(server.end_signal)
        assert_ends(server, peers, 1001)
    server.wait(HANG_S)
    assert "Traceback" not in server.stderr()


@pytest.mark.parametrize(
    "kind", [GUNICORN_SYNC, GUNICORN_GTHREAD, GUNICORN_GEVENT, GUNICORN_EVENTLET], ids=str
)
def test_reload(kind: Kind, own_server: Callable[..., Server]) -> None:
    """SIGHUP to gunicorn: 1012, and the new worker serves handlers."""
    server = own_server(kind, options=("--graceful-timeout", str(HANG_S)))
    worker = server.worker
    with in_all_states(server) as peers:
        server.send_signal(signal.SIGHUP)
        assert_ends(server, peers, 1012)
    eventually(lambda: not is_running(worker), HANG_S, "the old worker is gone")
    eventually(lambda: server.workers() and server.workers() != [worker], HANG_S)
    with in_all_states(server):
        pass
    assert "Traceback" not in server.stderr()


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (GUNICORN_SYNC, ("--preload", "--workers", "2")),
        (GUNICORN_GTHREAD, ("--preload", "--workers", "2")),
        (GUNICORN_GEVENT, ("--preload", "--workers", "2")),
        (UWSGI_HTTP_SOCKET, ("--processes", "2")),
        (UWSGI_GEVENT, ("--processes", "2")),
    ],
    ids=str,
)
@pytest.mark.parametrize("which", ["ticking", *later("idle", "async-idle", "async-ticking")])
def test_workers_that_were_forked(
    kind: Kind, options: tuple[str, ...], which: str, own_server: Callable[..., Server]
) -> None:
    """Each has threads, a loop and a timer of its own: the application was loaded before."""
    server = own_server(kind, options=options)
    eventually(lambda: len(server.workers()) == 2, HANG_S, "two workers")
    with contextlib.ExitStack() as stack:
        peers: dict[bytes, RawPeer] = {}

        def each_has_one() -> bool:
            peer = stack.enter_context(RawPeer.open(server, f"/handlers/ends/{which}/"))
            peer.send_text("who?")
            peers.setdefault(peer.read_message(), peer)
            return len(peers) == 2

        eventually(each_has_one, HANG_S, "each worker has a connection")
        assert {int(pid) for pid in peers} == set(server.workers())
        for pid, peer in peers.items():
            peer.send_text("again")
            for _ in range(4 if "ticking" in which else 1):
                assert peer.read_message() == pid
    assert server.stderr() == "" or kind in WSGI_SERVERS
