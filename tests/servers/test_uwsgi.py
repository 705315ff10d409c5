"""
Cases that only uWSGI has: its signals, its reloads, its forks, and the options that it needs.

The behaviours that it shares with the other servers are in test_contract.py and test_resources.py.
"""

from __future__ import annotations

import contextlib
import dataclasses
import selectors
import signal
import threading
import time
from typing import TYPE_CHECKING

import pytest

from support.idle import outlive
from support.raw_peer import RawPeer
from support.server import Kind, Server, is_running, thread_names
from support.unserved import error_of_501
from support.waiting import eventually, pause
from support.workers import ENGINE, connected_by_worker, connected_to_each, echoes_to_all
from support.wsgi_kinds import (
    UWSGI_BEHIND_NGINX,
    UWSGI_GEVENT,
    UWSGI_HTTP_SOCKET,
    UWSGI_LAZY,
    UWSGI_ONE_THREAD,
    UWSGI_ROUTER,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.extended("concerns uWSGI only")

GOING_AWAY, RESTART = 1001, 1012
# A limit for broken code: uWSGI itself kills what has not ended after a minute.
BOUND_S = 50
PATHS = ["/echo/", "/waits/", "/push/", "/never-read/", "/echo-exact/"]

ALIKE = pytest.mark.every("much like another way to run it")
each_way_to_run = pytest.mark.parametrize(
    "kind",
    [
        UWSGI_HTTP_SOCKET,
        *(pytest.param(kind, marks=ALIKE) for kind in (UWSGI_ONE_THREAD, UWSGI_LAZY)),
        *(pytest.param(kind, marks=ALIKE) for kind in (UWSGI_BEHIND_NGINX, UWSGI_GEVENT)),
    ],
    ids=str,
)


@contextlib.contextmanager
def sockets(server: Server, each: int = 20) -> Iterator[list[RawPeer]]:
    """Hold connections to views of each kind."""
    with contextlib.ExitStack() as stack:
        yield [
            peer
            for path in PATHS
            for peer in stack.enter_context(RawPeer.open_many(server, path, each))
        ]


def assert_all_were_told(peers: list[RawPeer], code: int = GOING_AWAY) -> None:
    """Every client has a close frame with the code, and nothing behind it."""
    assert {peer.read_to_eof().code for peer in peers} == {code}


def assert_ended(server: Server) -> None:
    """The process ends by itself, in bounded time, with no word of a crash in the log."""
    server.wait(BOUND_S)
    assert_calm(server)


def assert_calm(server: Server) -> None:
    """The log holds no traceback and no crash."""
    log = server.stderr()
    for word in ("Traceback", "Segmentation", "panicked", "Fatal", "NO MERCY", "DAMN"):
        assert word not in log, log


@contextlib.contextmanager
def busy(server: Server) -> Iterator[None]:
    """Keep the worker in the middle of a request that takes long."""
    with RawPeer(server.address) as page:
        page.send(f"GET /sleeps/ HTTP/1.1\r\nHost: {server.host}\r\n\r\n".encode())
        eventually(lambda: "sleeps: begun" in server.stderr(), 60, "the page is being made")
        yield


@each_way_to_run
class TestEnds:
    """However a worker ends, its clients get a close frame."""

    def test_sigterm(self, kind: Kind, own_server: Callable[..., Server]) -> None:
        """With --die-on-term, as service managers want it."""
        server = own_server(kind)
        with sockets(server) as peers:
            server.send_signal(signal.SIGTERM)
            assert_all_were_told(peers)
            assert_ended(server)

    def test_sigint(self, kind: Kind, own_server: Callable[..., Server]) -> None:
        """Ctrl-C."""
        server = own_server(kind)
        with sockets(server, 4) as peers:
            server.send_signal(signal.SIGINT)
            assert_all_were_told(peers)
            assert_ended(server)

    def test_sigterm_with_clients_that_do_not_answer(
        self, kind: Kind, own_server: Callable[..., Server]
    ) -> None:
        """Clients that neither read nor answer the close do not keep the process."""
        server = own_server(kind)
        with sockets(server):
            server.send_signal(signal.SIGTERM)
            assert_ended(server)

    def test_sigterm_in_the_middle_of_a_request(
        self, kind: Kind, own_server: Callable[..., Server]
    ) -> None:
        """A busy worker exits without running any Python: clients still get a close frame."""
        server = own_server(kind)
        with sockets(server, 4) as peers, busy(server):
            server.send_signal(signal.SIGTERM)
            assert_all_were_told(peers)
            assert_ended(server)

    def test_without_teardown(self, kind: Kind, own_server: Callable[..., Server]) -> None:
        """--skip-atexit-teardown leaves Python's own hooks out."""
        server = own_server(kind, options=("--skip-atexit-teardown",))
        with sockets(server, 4) as peers:
            server.send_signal(signal.SIGTERM)
            assert_all_were_told(peers)
            assert_ended(server)

    def test_graceful_end(self, kind: Kind, own_server: Callable[..., Server]) -> None:
        """SIGTERM made graceful by a hook; the workers see what they see on a reload."""
        hook = ("--hook-master-start", "unix_signal:15 gracefully_kill_them_all")
        server = own_server(kind, options=hook)
        with sockets(server, 4) as peers:
            server.send_signal(signal.SIGTERM)
            assert_all_were_told(peers, RESTART)
            assert_ended(server)

    def test_reloads(self, kind: Kind, own_server: Callable[..., Server]) -> None:
        """Three reloads in a row: each worker closes its clients, each next one takes new ones."""
        server = own_server(kind)
        for _ in range(3):
            worker = server.worker
            with sockets(server, 10) as peers:
                server.send_signal(signal.SIGHUP)
                assert_all_were_told(peers, RESTART)
            eventually(lambda w=worker: not is_running(w), BOUND_S, "the old worker is gone")
            eventually(lambda w=worker: server.workers() not in ([], [w]), 60, "a new worker")
            eventually(lambda: _answers(server), 60, "the new worker answers")
            with RawPeer.open(server, "/echo/") as peer:
                peer.send_text("hello again")
                assert peer.read_message() == b"hello again"
        assert_calm(server)

    def test_max_requests(self, kind: Kind, own_server: Callable[..., Server]) -> None:
        """A worker that is replaced after some requests closes its clients, too."""
        server = own_server(kind, options=("--max-requests", "15", "--min-worker-lifetime", "0"))
        worker = server.worker
        with RawPeer.open(server, "/echo/") as peer:
            for _ in range(20):
                with contextlib.suppress(OSError):
                    server.get("/echo/")
            assert peer.read_to_eof().code == RESTART
        eventually(lambda: not is_running(worker), BOUND_S, "the old worker is gone")
        assert_calm(server)


def test_worn_out_worker_among_others(own_server: Callable[..., Server]) -> None:
    """Others serve meanwhile: its clients are closed one by one, over the window."""
    # Many more than it takes until each has its clients: one worker may get most of the first.
    options = ("--processes", "2", "--max-requests", "400", "--min-worker-lifetime", "0")
    settings = {"WEBSOCKET_DRAIN": 8, "WEBSOCKET_PING_INTERVAL": None}
    server = own_server(UWSGI_HTTP_SOCKET, options=options, settings=settings)
    with contextlib.ExitStack() as stack:
        peers = connected_by_worker(server, stack, 10)
        for pid, moments in _wear_out(server, peers).items():
            assert max(moments) - min(moments) > 0.5, moments
            assert_all_were_told(peers[pid], RESTART)
            eventually(lambda pid=pid: not is_running(pid), BOUND_S, "the worker is gone")
    assert_calm(server)


def _wear_out(server: Server, peers: dict[int, list[RawPeer]]) -> dict[int, list[float]]:
    """Ask for pages until all clients of a worker are closed; give the moments, by worker."""
    told: dict[int, list[float]] = {}

    def ask() -> None:
        while not told:
            # A page may be the worker's last, and wait until its clients are closed.
            with contextlib.suppress(OSError):
                server.get("/status/")

    asking = threading.Thread(target=ask)
    asking.start()
    with selectors.DefaultSelector() as selector:
        for pid, ours in peers.items():
            for peer in ours:
                selector.register(peer.sock, selectors.EVENT_READ, pid)
        deadline = time.monotonic() + 90
        while not told or any(len(told[pid]) < len(peers[pid]) for pid in told):
            assert time.monotonic() < deadline, told
            for key, _ in selector.select(1):
                told.setdefault(key.data, []).append(time.monotonic())
                selector.unregister(key.fileobj)
    asking.join(60)
    return told


def _answers(server: Server) -> bool:
    with contextlib.suppress(OSError):
        return server.get("/status/").status == 200
    return False


def test_forked_after_the_import(own_server: Callable[..., Server]) -> None:
    """Without --lazy-apps the workers are forked with the application: one engine in each."""
    server = own_server(UWSGI_HTTP_SOCKET, options=("--processes", "2", "--thunder-lock"))
    eventually(lambda: len(server.workers()) == 2, 60, "two workers")
    with contextlib.ExitStack() as stack:
        peers = connected_to_each(server, stack)
        echoes_to_all(peers)
        assert ENGINE not in thread_names(server.pid)
        # The end of one worker closes its own clients only.
        server.send_signal(signal.SIGTERM)
        assert_all_were_told(peers)
        assert_ended(server)


class TestIdle:
    """Silence is not what ends a connection."""

    @pytest.mark.slow
    @each_way_to_run
    def test_200_sockets_outlive_every_timeout(
        self, kind: Kind, own_server: Callable[..., Server]
    ) -> None:
        """200 idle sockets on one worker, beyond socket timeout and harakiri, beside pages."""
        server = own_server(kind, options=("--socket-timeout", "6", "--harakiri", "8"))
        with server.quiet(), server.nothing_left():
            worker = server.worker
            with RawPeer.open_many(server, "/echo/", 200) as peers:
                outlive(server, peers, pages=24)
            assert server.worker == worker

    @pytest.mark.slow
    @pytest.mark.parametrize("kind", [UWSGI_ROUTER], ids=str)
    def test_pings_hold_the_router(self, kind: Kind, own_server: Callable[..., Server]) -> None:
        """The router cuts what is silent for --http-timeout: pings below it keep connections."""
        server = own_server(
            kind, options=("--http-timeout", "8"), settings={"WEBSOCKET_PING_INTERVAL": 1}
        )
        with RawPeer.open_many(server, "/echo/", 20) as peers:
            for _ in range(24):
                pause(0.5)
                assert server.get("/echo/").status == 200
            for peer in peers:
                peer.send_text("still here")
                assert peer.read_message() == b"still here"


def without(kind: Kind, name: str, *options: str) -> Kind:
    """The same server with some of its options left out."""
    left = [option for option in kind.options if option not in options]
    return dataclasses.replace(kind, name=name, options=tuple(left))


REFUSALS = {
    "router without WebSockets": (
        without(UWSGI_ROUTER, "uwsgi-dead-router", "--http-websockets"),
        "--http-websockets",
    ),
    "no threads": (
        without(UWSGI_ONE_THREAD, "uwsgi-no-threads", "--enable-threads"),
        "--enable-threads",
    ),
    "one thread that is no threads": (
        dataclasses.replace(
            without(UWSGI_ONE_THREAD, "uwsgi-threads-1", "--enable-threads"),
            options=(
                *without(UWSGI_ONE_THREAD, "", "--enable-threads").options,
                *("--threads", "1"),
            ),
        ),
        "--enable-threads",
    ),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_refusals(name: str, own_server: Callable[..., Server]) -> None:
    """501, one error in the log that says what to add, and pages as ever."""
    kind, remedy = REFUSALS[name]
    server = own_server(kind)
    error = error_of_501(server, "ERROR dwebsocket")
    assert remedy in error
    assert "uWSGI" in error


@pytest.mark.parametrize("option", ["--http-raw-body", "--http-websockets"])
def test_routers_that_let_through(option: str, own_server: Callable[..., Server]) -> None:
    """Each of the two options of the router serves."""
    bare, _ = REFUSALS["router without WebSockets"]
    server = own_server(bare, options=(option,))
    with RawPeer.open(server, "/echo/") as peer:
        peer.send_text("through the router")
        assert peer.read_message() == b"through the router"
