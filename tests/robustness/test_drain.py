"""
Processes that end while the site goes on: `WEBSOCKET_DRAIN` and `dwebsocket.drain()`.

The clients of one process are closed with 1012, one after the other, within the time that its
server gives it; clients that come back reach another process.
"""

from __future__ import annotations

import contextlib
import re
import selectors
import signal
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from support.event_stream import Stream
from support.raw_peer import CLOSE, PING, PONG, RawPeer, handshake_request
from support.server import (
    GUNICORN_ASGI,
    GUNICORN_GTHREAD,
    GUNICORN_SYNC,
    RUNSERVER,
    Kind,
    Server,
    is_running,
)
from support.waiting import eventually
from support.workers import connected_by_worker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from support.raw_peer import Response

    Own = Callable[..., Server]

GUNICORNS = pytest.mark.parametrize(
    "kind", [GUNICORN_SYNC, GUNICORN_GTHREAD, GUNICORN_ASGI], ids=str
)
PATHS = ["/echo/", "/waits/", "/echo-exact/"]
WINDOW_S = 5
# A limit for broken code: below the windows of the tests in which none is to be waited for.
SLACK_S = 50
LONG_S = 60


def draining(own_server: Own, kind: Kind, *options: str, window: float = WINDOW_S) -> Server:
    """Start gunicorn with a drain window, and without pings: a close frame is all that comes."""
    settings = {"WEBSOCKET_DRAIN": window, "WEBSOCKET_PING_INTERVAL": None}
    return own_server(kind, options=options, settings=settings)


@contextlib.contextmanager
def sockets(server: Server, count: int = 60) -> Iterator[list[RawPeer]]:
    """Hold `count` connections."""
    with contextlib.ExitStack() as stack:
        share = count // len(PATHS)
        yield [
            peer
            for path in PATHS
            for peer in stack.enter_context(RawPeer.open_many(server, path, share))
        ]


def ends(peers: list[RawPeer], asked: Sequence[RawPeer] = ()) -> tuple[set[int | None], int]:
    """
    Read all connections to their close frames.

    Returns:
        The codes; and how many of those `asked`, which are sent a ping when the first close
        frame has come, were answered before their own close frame.
    """
    codes: list[int | None] = []
    answers = 0
    with selectors.DefaultSelector() as selector:
        for peer in peers:
            selector.register(peer.sock, selectors.EVENT_READ, peer)
        while selector.get_map():
            ready = selector.select(30)
            assert ready, f"only {len(codes)} of {len(peers)} were told"
            for key, _ in ready:
                peer = key.data
                alive = peer._fill()
                while (frame := peer._parse()) is not None:
                    if frame.opcode == CLOSE:
                        if not codes:
                            for other in asked:
                                other.send_frame(PING, b"still here?")
                        codes.append(frame.code)
                        # The server waits for it no longer than for its own close timeout.
                        with contextlib.suppress(ConnectionError):
                            peer.send_frame(CLOSE, frame.payload)
                        selector.unregister(peer.sock)
                        break
                    answers += frame.opcode == PONG
                    if frame.opcode == PING:
                        peer.send_frame(PONG, frame.payload)
                else:
                    assert alive, f"an end without a close frame: {codes}"
    return set(codes), answers


def assert_spread(peers: list[RawPeer], code: int) -> None:
    """
    All get the code, and not at once: most are served when the first is closed.

    How evenly, and that the window is kept, are tests of the engine's, by a stepped clock.
    """
    codes, answers = ends(peers, asked=peers)
    assert codes == {code}
    # Nearly all of them, unless this machine stops for most of the window.
    assert answers > len(peers) / 4


def refused(server: Server, path: str = "/echo/") -> Response:
    """Send a handshake and give the answer."""
    with RawPeer(server.address) as peer:
        peer.send(handshake_request(path, server.host))
        return peer.read_response()


# gunicorn's ASGI worker cancels the handshakes that are under way when it ends. The call of sync
# middleware ends with that on a thread of asgiref's, whose future nothing asks any more.
OF_ASGIREF = re.compile(
    r"ERROR asyncio: Future exception was never retrieved\n"
    r"future: <Future finished exception=CancelledError\(\)>\n"
    r"Traceback(?:.*\n)*?\S*CancelledError.*\n"
)


def assert_calm(server: Server) -> None:
    """The log holds no traceback and no error, but for handshakes that the server has cancelled."""
    log = OF_ASGIREF.sub("", server.stderr())
    for word in ("Traceback", "Exception", "Error", "panicked", "Fatal"):
        assert word not in log, log


def assert_serves(server: Server) -> None:
    """A new client is served."""
    with RawPeer.open(server, "/echo/") as peer:
        peer.send_text("hello again")
        assert peer.read_message() == b"hello again"


@GUNICORNS
@pytest.mark.extended("reloads workers under load")
class TestGunicorn:
    """gunicorn's ways to end a worker."""

    def test_reload_spreads_and_welcomes(self, kind: Kind, own_server: Own) -> None:
        """SIGHUP: 1012 over the window; clients that come back meanwhile reach a new worker."""
        server = draining(own_server, kind)
        old = server.worker
        with sockets(server) as peers, ThreadPoolExecutor(1) as aside:
            server.send_signal(signal.SIGHUP)
            told = aside.submit(assert_spread, peers, 1012)
            eventually(lambda: len(server.workers()) == 2, 60, "a new worker")
            eventually(lambda: server.status()["pid"] != old, 60, "the new worker serves")
            assert_serves(server)
            told.result()
        eventually(lambda: not is_running(old), SLACK_S, "the old worker is gone")
        assert_calm(server)

    def test_stop_is_an_end(self, kind: Kind, own_server: Own) -> None:
        """SIGTERM to the arbiter: spread as well, but with 1001, and the exit status is 0."""
        server = draining(own_server, kind)
        with sockets(server) as peers:
            server.send_signal(signal.SIGTERM)
            assert_spread(peers, 1001)
            assert server.wait(SLACK_S) == 0
        assert_calm(server)

    def test_worker_more_and_worker_less(self, kind: Kind, own_server: Own) -> None:
        """SIGTTIN adds a worker; SIGTTOU takes the older one, whose clients move to the other."""
        server = draining(own_server, kind)
        (old,) = server.workers()
        with sockets(server) as peers:
            server.send_signal(signal.SIGTTIN)
            eventually(lambda: len(server.workers()) == 2, 60, "a second worker")
            server.send_signal(signal.SIGTTOU)
            assert_spread(peers, 1012)
            eventually(lambda: not is_running(old), SLACK_S, "the older worker is gone")
            assert_serves(server)
        assert_calm(server)

    def test_worn_out_worker_among_others(self, kind: Kind, own_server: Own) -> None:
        """--max-requests with others to serve meanwhile: 1012, spread."""
        server = draining(own_server, kind, "--workers", "2", "--max-requests", "400", window=8)
        workers = server.workers()
        with contextlib.ExitStack() as stack:
            peers = connected_by_worker(server, stack, 20)
            while all(is_running(pid) for pid in workers) and not _told(peers):
                with contextlib.suppress(OSError):
                    server.get("/status/", timeout=1)
            # Both, where the requests were shared out evenly.
            worn_out = _told(peers)
            ours = [peer for pid in worn_out for peer in peers[pid]]
            assert_spread(ours, 1012)
            eventually(
                lambda: not any(is_running(pid) for pid in worn_out),
                SLACK_S,
                "the worn out workers are gone",
            )
            assert_serves(server)
        assert_calm(server)

    def test_worn_out_worker_alone(self, kind: Kind, own_server: Own) -> None:
        """No process serves until the only worker has ended, so it ends at once."""
        server = draining(own_server, kind, "--max-requests", "70", window=LONG_S)
        old = server.worker
        with sockets(server) as peers:
            # The worker for ASGI does not count handshakes.
            while is_running(old) and not _told({old: peers}):
                with contextlib.suppress(OSError):
                    server.get("/status/", timeout=1)
            assert ends(peers)[0] == {1012}
            eventually(lambda: not is_running(old), SLACK_S, "the worn out worker is gone")
            eventually(lambda: server.workers() and server.workers() != [old], SLACK_S)
            assert_serves(server)

    def test_quick_stop(self, kind: Kind, own_server: Own) -> None:
        """SIGINT is meant to be quick: no window."""
        server = draining(own_server, kind, window=LONG_S)
        with sockets(server) as peers:
            # gunicorn logs a traceback for a request that SIGINT interrupts.
            server.at_rest()
            server.send_signal(signal.SIGINT)
            assert ends(peers)[0] == {1001}
            server.wait(SLACK_S)
        assert_calm(server)

    @pytest.mark.parametrize(
        ("options", "limit"),
        [
            (("--graceful-timeout", "5"), "gunicorn's --graceful-timeout"),
            (("--timeout", "10"), "half of gunicorn's --timeout"),
        ],
        ids=["graceful-timeout", "timeout"],
    )
    def test_window_longer_than_the_server_waits(
        self, kind: Kind, own_server: Own, options: tuple[str, str], limit: str
    ) -> None:
        """The window is cut to what the server gives, and the log says so when it is noticed."""
        server = draining(own_server, kind, *options, window=300)
        with sockets(server) as peers:
            says = (
                f"WEBSOCKET_DRAIN is 300 s, but {limit} ends a worker after 5 s: "
                "its WebSockets will be closed within 3.5 s."
            )
            assert server.stderr().count(says) == 1
            server.send_signal(signal.SIGTERM)
            assert_spread(peers, 1001)
            assert server.wait(SLACK_S) == 0
        assert_calm(server)

    def test_nobody_there(self, kind: Kind, own_server: Own) -> None:
        """Without open sockets the window does not matter."""
        server = draining(own_server, kind, window=LONG_S)
        assert_serves(server)
        server.send_signal(signal.SIGTERM)
        assert server.wait(SLACK_S) == 0

    def test_clients_leave_early(self, kind: Kind, own_server: Own) -> None:
        """The process ends with its last client, not with its window."""
        server = draining(own_server, kind, window=LONG_S)
        with sockets(server) as peers:
            server.send_signal(signal.SIGTERM)
            # One client is closed early: the worker has begun to drain.
            with selectors.DefaultSelector() as selector:
                for peer in peers:
                    selector.register(peer.sock, selectors.EVENT_READ)
                assert selector.select(50)
        assert server.wait(SLACK_S) == 0
        assert_calm(server)


def _told(peers: dict[int, list[RawPeer]]) -> list[int]:
    """The processes of which a client has received a close frame."""
    with selectors.DefaultSelector() as selector:
        for pid, ours in peers.items():
            for peer in ours:
                selector.register(peer.sock, selectors.EVENT_READ, pid)
        return sorted({key.data for key, _ in selector.select(0)})


@pytest.mark.extended("reloads a server")
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_gunicorns_worker_for_asgi(loop: str, own_server: Own) -> None:
    """As its other workers, also when its first client has come by the fallback."""
    options = ("--asgi-loop", loop, "--graceful-timeout", "5")
    server = draining(own_server, GUNICORN_ASGI, *options, window=300)
    with Stream.open(server, "/fallback/echo/") as stream, sockets(server) as peers:
        assert server.stderr().count("its WebSockets will be closed within 3.5 s.") == 1
        server.send_signal(signal.SIGHUP)
        assert_spread(peers, 1012)
        assert stream.close_event()[0] == 1012
    assert_calm(server)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_runserver_does_not_wait(number: int, own_server: Own) -> None:
    """A developer's server ends at once, whatever the window."""
    server = own_server(RUNSERVER, settings={"WEBSOCKET_DRAIN": LONG_S})
    with sockets(server) as peers:
        server.send_signal(number)
        assert ends(peers)[0] == {1001}
        server.wait(SLACK_S)


class TestDrain:
    """`dwebsocket.drain()`, called by the project's own code."""

    def test_spreads_waits_and_refuses_the_next(self, own_server: Own) -> None:
        """1012 over the window; 503 with Retry-After from then on; HTTP goes on."""
        server = own_server(GUNICORN_GTHREAD)
        with sockets(server) as peers, ThreadPoolExecutor(1) as aside:
            answer = aside.submit(server.get, "/drain/?window=6")
            assert_spread(peers, 1012)
            said = answer.result().json()
            assert said["done"]
            assert said["seconds"] < 6 + SLACK_S
        response = refused(server)
        assert (response.status, response.header("Retry-After")) == (503, "5")
        assert server.get("/echo/").status == 200
        assert server.status()["pid"] == server.worker

    def test_is_over_at_once_without_websockets(self, own_server: Own) -> None:
        """Also in a process that never had one; new ones are refused all the same."""
        server = own_server(GUNICORN_GTHREAD, settings={"WEBSOCKET_DRAIN": 30})
        said = server.get("/drain/").json()
        assert said["done"]
        assert said["seconds"] < SLACK_S
        assert refused(server).status == 503

    def test_gives_up_waiting_when_told_to(self, own_server: Own) -> None:
        """A view that does not notice the end: the call gives False, and the drain goes on."""
        server = own_server(GUNICORN_GTHREAD)
        with RawPeer.open_many(server, "/echo/", 10) as peers:
            said = server.get("/drain/?window=30&timeout=0").json()
            assert not said["done"]
            assert said["seconds"] < SLACK_S
            # A later call can only hurry it.
            assert not server.get("/drain/?window=300&timeout=0.1").json()["done"]
            assert server.get("/drain/?window=0&timeout=20").json()["done"]
            assert {peer.read_to_eof().code for peer in peers} == {1012}
        assert server.get("/drain/?window=300").json()["done"]

    def test_many_wait_for_the_same_end(self, own_server: Own) -> None:
        """Several threads may call it at once."""
        server = own_server(GUNICORN_GTHREAD, options=("--threads", "8"))
        with sockets(server) as peers, ThreadPoolExecutor(6) as aside:
            answers = [aside.submit(server.get, "/drain/?window=1") for _ in range(6)]
            assert ends(peers)[0] == {1012}
            assert all(answer.result().json()["done"] for answer in answers)

    def test_from_a_view_is_an_error(self, server: Server) -> None:
        """It would wait for itself; no connection is closed."""
        with RawPeer.open(server, "/drains-itself/") as peer:
            assert b"would wait for this view" in peer.read_message()
        assert_serves(server)

    def test_then_the_process_ends(self, own_server: Own) -> None:
        """A drain of a minute does not outlast the server's timeout: the end hurries it."""
        server = own_server(GUNICORN_GTHREAD, settings={"WEBSOCKET_DRAIN": 2})
        with sockets(server) as peers:
            server.get("/drain/?window=60&timeout=0")
            server.send_signal(signal.SIGTERM)
            codes, _ = ends(peers)
            assert 1001 in codes
            assert codes <= {1001, 1012}
            assert server.wait(SLACK_S) == 0
        assert_calm(server)
