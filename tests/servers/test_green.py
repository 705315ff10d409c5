"""gevent and eventlet: whatever a view does, the hub goes on; and nothing is left of the view."""

from __future__ import annotations

import contextlib
import itertools
import json
import signal
from typing import TYPE_CHECKING

import pytest

from support.clients import websocket
from support.raw_peer import RawPeer, handshake_request
from support.selection import later
from support.server import (
    EVENTLET_PATCHED,
    EVENTLET_PLAIN,
    GEVENT_PATCHED,
    GEVENT_PLAIN,
    GREEN,
    GUNICORN_EVENTLET,
    GUNICORN_GEVENT,
    Kind,
    Server,
    descriptors,
)
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable

everywhere = pytest.mark.parametrize("server", GREEN, indirect=True, ids=str)
PATCHED = tuple(kind for kind in GREEN if kind not in (GEVENT_PLAIN, EVENTLET_PLAIN))
patched = pytest.mark.parametrize("server", PATCHED, indirect=True, ids=str)


@everywhere
class TestViews:
    """Views on one green thread each."""

    def test_wait_with_a_timeout(self, server: Server) -> None:
        """It ends in time, and the connection goes on."""
        with RawPeer.open(server, "/green/impatient/") as peer:
            assert peer.read_message() == b"None True"
            peer.send_text("still here")
            assert peer.read_message() == b"still here"

    def test_polling_lets_others_run(self, server: Server) -> None:
        """A view that asks without end stops neither pages nor other views."""
        with (
            RawPeer.open(server, "/green/polls/") as polling,
            RawPeer.open(server, "/echo/") as echo,
        ):
            assert server.get("/echo/").status == 200
            for peer in (polling, echo, polling):
                peer.send_text("hello")
                assert peer.read_message() == b"hello"

    def test_a_slow_reader_stops_only_its_own_view(self, server: Server) -> None:
        """While a view waits for room, pages are served and others are echoed; then it goes on."""
        with (
            RawPeer.open(server, "/green/floods/") as slow,
            RawPeer.open(server, "/echo/") as echo,
        ):
            slow.send_text("go")
            for _ in range(5):
                assert server.get("/echo/").status == 200
                echo.send_text("hello")
                assert echo.read_message() == b"hello"
            sizes = [len(slow.read_message()) for _ in range(24)]
            assert sizes == [1 << 20] * 24
            assert slow.read_message() == b"that was all"

    def test_a_large_message_does_not_hold_up_the_hub(self, server: Server) -> None:
        """It is compressed on another thread, and others have more turns than one or two."""
        headers = {"Sec-WebSocket-Extensions": "permessage-deflate"}
        with RawPeer.open(server, "/green/sends-large/", headers=headers) as peer:
            peer.send_text("go")
            assert len(peer.read_message()) == 8 << 20
            assert int(peer.read_message()) >= 5

    def test_async_views(self, server: Server) -> None:
        """They run on a loop of their own, beside the hub."""
        with server.quiet(), RawPeer.open_many(server, "/green/async-echo/", 10) as peers:
            for number, peer in enumerate(peers):
                peer.send_text(str(number))
            assert server.get("/echo/").status == 200
            for number, peer in enumerate(peers):
                assert peer.read_message() == b"%d" % number

    def test_async_views_reach_the_orm(self, server: Server) -> None:
        """`sync_to_async`, the async ORM and `to_thread` work there."""
        with server.quiet(), RawPeer.open(server, "/green/async-facts/") as peer:
            peer.send_text("go")
            assert json.loads(peer.read_message()) == [1, "slept"]
            assert peer.read_frame().code == 1000

    def test_what_runs_beside_async_views_is_waited_for(self, server: Server) -> None:
        """Neither a hub nor a loop stands still meanwhile."""
        with server.quiet(), RawPeer.open(server, "/green/async-joins/") as peer:
            assert [peer.read_message(), peer.read_message()] == [b"stopped", b"joined"]

    def test_fork(self, server: Server) -> None:
        """A forked child neither sends nor receives on its parent's connections, which go on."""
        with (
            RawPeer.open(server, "/green/forks/") as peer,
            RawPeer.open(server, "/echo/") as echo,
        ):
            for number in range(3):
                peer.send_text(str(number))
                assert peer.read_message() == b"%d 7" % number
                echo.send_text("hello")
                assert echo.read_message() == b"hello"
            assert server.get("/echo/").status == 200


@patched
class TestPatched:
    """Behaviour that needs a patched standard library."""

    def test_clocks(self, server: Server) -> None:
        """Fifty views that sleep tick together, beside pages."""
        with RawPeer.open_many(server, "/green/clock/", 50) as peers:
            for _ in range(5):
                assert server.get("/echo/").status == 200
                assert {peer.read_message() for peer in peers} == {b"tick"}

    def test_two_wait_on_one_connection(self, server: Server) -> None:
        """Each message is taken once, in order for each of them; both see the end."""
        with server.nothing_left(), websocket(server, "/green/two-wait/") as client:
            for number in range(50):
                client.send(str(number))
            answers = [client.recv(10).split() for _ in range(50)]
            assert sorted(int(number) for _, number in answers) == list(range(50))


@pytest.mark.parametrize("kind", [GUNICORN_GEVENT, GEVENT_PATCHED], ids=str)
@pytest.mark.parametrize("threads", [*later(1), 16])
def test_consumers_run_on_the_hub_of_the_server(
    kind: Kind, threads: int, own_server: Callable[..., Server]
) -> None:
    """No thread of the system waits for a green lock: wake-ups between two hubs get lost."""
    layer = {"BACKEND": "channels.layers.InMemoryChannelLayer"}
    settings = {
        "ROOT_URLCONF": "project.consumer_site",
        "CHANNEL_LAYERS": {"default": layer},
        "WEBSOCKET_CHANNELS_THREADS": threads,
    }
    server = own_server(kind, settings=settings)
    for path in ("/Grouped/", "/AsyncGrouped/", "/Facts/", "/AsyncFacts/") * 2:
        with RawPeer.open_many(server, path, 10) as peers:
            for peer in peers:
                peer.send_text("hello")
                assert peer.read_message()
            for peer in peers:
                peer.vanish()
        with RawPeer(server.address) as refused:
            refused.send(handshake_request("/Denying/", server.host))
            assert refused.read_response().status == 403
        assert server.get("/echo/").status == 200
    rooms = ("/ws/room/a/", "/ws/async-room/a/")
    headers = {"Origin": f"http://{server.host}"}
    with RawPeer(server.address) as failing:
        failing.send(handshake_request("/Choosing/", server.host))
        assert failing.read_response().status == 500
    with contextlib.ExitStack() as stack:
        for path in rooms * 20:
            peer = stack.enter_context(RawPeer.open(server, path, headers=headers))
            peer.send_text('{"message": "hello"}')
            stack.callback(peer.vanish)
    for path in rooms:
        with RawPeer.open(server, path, headers=headers) as peer:
            peer.send_text('{"message": "and others"}')
            while peer.read_message() != b'{"message": "and others"}':
                pass
    assert server.get("/green/hubs/").body == b"1"
    server.send_signal(signal.SIGTERM)
    server.wait(60)


@pytest.mark.parametrize("kind", [GUNICORN_GEVENT, GEVENT_PATCHED], ids=str)
def test_clients_that_take_nothing_hold_up_no_consumer(
    kind: Kind, own_server: Callable[..., Server]
) -> None:
    """Their messages wait for them, the others go on, and their places come back."""
    most = 27
    settings = {"ROOT_URLCONF": "project.consumer_site", "WEBSOCKET_MAX_CONNECTIONS": most + 1}
    server = own_server(kind, settings=settings)
    paths = itertools.cycle(["/flooding/", "/flooding/stack/"])
    with contextlib.ExitStack() as stack:
        echo = stack.enter_context(RawPeer.open(server, "/Echo/"))

        def come() -> RawPeer:
            return stack.enter_context(RawPeer.open(server, next(paths), receive_buffer=4096))

        def finds_a_place() -> bool:
            with contextlib.suppress(AssertionError):
                return bool(come())
            return False

        peers = [come() for _ in range(most)]
        for peer in peers:
            peer.send_text("60")
        echo.send_text("hello")
        assert echo.read_message() == b"hello"
        for peer in peers:
            peer.vanish()
        for _ in range(most):
            eventually(finds_a_place)


@pytest.mark.parametrize("kind", [GUNICORN_GEVENT, GREEN[1], GUNICORN_EVENTLET], ids=str)
@pytest.mark.parametrize("workers", [*later("1"), "2"])
def test_preload(kind: Kind, workers: str, own_server: Callable[..., Server]) -> None:
    """Modules that were imported before the worker patched everything work as well."""
    server = own_server(kind, options=("--preload", "--workers", workers))
    with RawPeer.open_many(server, "/green/clock/", 10), RawPeer.open(server, "/echo/") as echo:
        for _ in range(5):
            assert server.get("/echo/").status == 200
            echo.send_text("hello")
            assert echo.read_message() == b"hello"
        with RawPeer.open(server, "/green/async-echo/") as peer:
            peer.send_text("hello")
            assert peer.read_message() == b"hello"
    # gunicorn loses a signal for a worker that has not set up its hub and its handlers yet.
    eventually(lambda: all(_has_hub(pid) for pid in server.workers()), 60)
    server.at_rest(server.workers()[-1])
    server.send_signal(signal.SIGTERM)
    server.wait(60)
    assert "Traceback" not in server.stderr()


def _has_hub(pid: int) -> bool:
    return any("eventpoll" in target for target in descriptors(pid))


@pytest.mark.parametrize("kind", [GUNICORN_GEVENT, GREEN[1], GUNICORN_EVENTLET], ids=str)
def test_reload(kind: Kind, own_server: Callable[..., Server]) -> None:
    """After a HUP clients get 1012, the old worker ends, and a new one takes them."""
    server = own_server(kind)
    old = server.worker
    with RawPeer.open_many(server, "/waits/", 20) as peers:
        server.send_signal(signal.SIGHUP)
        assert {peer.read_to_eof().code for peer in peers} <= {1001, 1012}
    eventually(lambda: server.workers() not in ([old], []) and old not in server.workers(), 60)
    with RawPeer.open(server, "/echo/") as peer:
        peer.send_text("again")
        assert peer.read_message() == b"again"
    assert "Traceback" not in server.stderr()


@pytest.mark.parametrize("kind", [GEVENT_PATCHED, GEVENT_PLAIN, EVENTLET_PATCHED], ids=str)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_end_of_a_bare_server(
    kind: Kind, number: signal.Signals, own_server: Callable[..., Server]
) -> None:
    """A server that handles no signals closes its clients, too."""
    server = own_server(kind)
    with RawPeer.open_many(server, "/echo/", 10) as peers:
        server.send_signal(number)
        assert {peer.read_to_eof().code for peer in peers} == {1001}
    server.wait(60)


@pytest.mark.parametrize("kind", [GEVENT_PATCHED, GEVENT_PLAIN, EVENTLET_PATCHED], ids=str)
def test_interrupt_while_a_view_runs(kind: Kind, own_server: Callable[..., Server]) -> None:
    """Ctrl-C ends the server, whichever greenlet runs; no client gets a view's error code."""
    server = own_server(kind)
    with (
        RawPeer.open_many(server, "/echo/", 3) as peers,
        RawPeer.open(server, "/green/interrupts/") as interrupting,
    ):
        interrupting.send_text("now")
        assert {peer.read_to_eof().code for peer in [*peers, interrupting]} == {1001}
    server.wait(60)
    assert "Internal Server Error" not in server.stderr()
