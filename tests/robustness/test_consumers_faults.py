"""
Faults around consumers: clients, the consumers themselves, the layer's server, the server's end.

`disconnect` is called exactly once, with the code of the end; nothing of a consumer is left, and
the others go on. In the three ways in which the engine serves consumers.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from typing import TYPE_CHECKING

import pytest

from support.consumers import (
    ASYNC,
    KINDS,
    PATHS,
    SETTINGS,
    SYNC,
    converses,
    ends,
    ends_of_all,
    new_id,
    nothing_left,
)
from support.raw_peer import BINARY, CLOSE, PING, TEXT, RawPeer, build_frame, handshake_request
from support.redis import Redis
from support.server import TIME_TO_END
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from support.server import Kind, Server

    Own = Callable[..., Server]

pytestmark = pytest.mark.extended("faults of clients and of servers, with consumers")

MAX_MESSAGE = 1000

on_each = pytest.mark.parametrize("server", KINDS, indirect=True, ids=str)
on_own = pytest.mark.parametrize("kind", KINDS, ids=str)
of_both = pytest.mark.parametrize("path", PATHS, ids=["sync", "async"])


@pytest.fixture
def site_settings() -> dict[str, object]:
    """The consumers, with small limits."""
    return {
        **SETTINGS,
        "WEBSOCKET_MAX_MESSAGE_SIZE": MAX_MESSAGE,
        "WEBSOCKET_SEND_BUFFER": 200_000,
        "WEBSOCKET_SEND_TIMEOUT": 1,
    }


class Named(RawPeer):
    """A client whose consumer notes its end under a name."""

    name = ""

    @classmethod
    def at(cls, server: Server, path: str, *, fails: str = "", **how: int) -> Named:
        """Open one; `fails` is the method of the consumer that is to raise."""
        name = new_id()
        peer = cls.open(server, f"{path}?id={name}&fail={fails}", **how)  # type: ignore[arg-type]
        assert isinstance(peer, cls)
        peer.name = name
        return peer

    def talk(self) -> None:
        """Have an answer."""
        self.send_text("hello")
        assert self.read_message() == b"hello"


def cut_message(peer: RawPeer) -> None:
    """Reset between two frames of one message."""
    peer.send_frame(TEXT, b"never whole", fin=False)
    peer.vanish()


def cut_frame(peer: RawPeer) -> None:
    """Reset within a frame."""
    peer.send(build_frame(TEXT, b"never whole")[:-3])
    peer.vanish()


# How a client ends its connection, and the code that the consumer is told.
ENDS: dict[str, tuple[Callable[[RawPeer], None], int]] = {
    "a close frame": (lambda peer: peer.send_close(4001), 4001),
    "one without a code": (lambda peer: peer.send_close(None), 1005),
    "a reset": (RawPeer.vanish, 1006),
    "a reset within a frame": (cut_frame, 1006),
    "a reset within a message": (cut_message, 1006),
    "half of the connection": (RawPeer.finish, 1006),
    "a reserved opcode": (lambda peer: peer.send_frame(3), 1002),
    "no mask": (lambda peer: peer.send_frame(TEXT, b"bare", mask=None), 1002),
    "a frame of a message that has not begun": (lambda peer: peer.send_frame(0, b"more"), 1002),
    "no UTF-8": (lambda peer: peer.send_frame(TEXT, b"\xff"), 1007),
    "a message that is too large": (lambda peer: peer.send_text("x" * (MAX_MESSAGE + 1)), 1009),
}


class TestClients:
    """Clients that vanish, stop, break rules, or do too much."""

    @on_each
    @of_both
    def test_ends(self, server: Server, path: str) -> None:
        """Of each kind the consumer is told, once, with the code."""
        with nothing_left(server), contextlib.ExitStack() as stack:
            neighbour = stack.enter_context(Named.at(server, path))
            expected = {}
            for end, code in ENDS.values():
                peer = stack.enter_context(Named.at(server, path))
                peer.talk()
                end(peer)
                expected[peer.name] = [code]
            eventually(
                lambda: expected.keys() <= ends_of_all(server).keys(), what="all have been told"
            )
            neighbour.talk()
        told = ends_of_all(server)
        assert {end: told[name] for end, name in zip(ENDS, expected, strict=True)} == {
            end: [code] for end, (_, code) in ENDS.items()
        }
        assert ends(server, neighbour.name) == [1006]

    @on_own
    def test_silence(self, kind: Kind, own_server: Own) -> None:
        """A client that answers no ping is gone; one that does stays."""
        settings = {"WEBSOCKET_PING_INTERVAL": 1, "WEBSOCKET_PING_TIMEOUT": 8}
        server = own_server(kind, settings=settings)
        with nothing_left(server), contextlib.ExitStack() as stack:
            silent = [stack.enter_context(Named.at(server, path)) for path in PATHS]
            other = stack.enter_context(Named.at(server, ASYNC))

            def all_are_found() -> bool:
                other.talk()
                return all(ends(server, peer.name) for peer in silent)

            eventually(all_are_found)
            other.talk()
        assert [ends(server, peer.name) for peer in silent] == [[1006], [1006]]

    @on_each
    @of_both
    def test_slow_reader(self, server: Server, path: str) -> None:
        """It is closed with 1013, its consumer goes on to its end, and others do not wait."""
        with nothing_left(server), contextlib.ExitStack() as stack:
            slow = stack.enter_context(Named.at(server, path, receive_buffer=4096))
            slow.send_text("pour")
            converses(server, path, turns=20)
            eventually(lambda: ends(server, slow.name))
        assert ends(server, slow.name) == [1013]

    @on_each
    @of_both
    @pytest.mark.parametrize(
        ("block", "count"),
        [(build_frame(PING, b"?") * 1000, 300), (build_frame(BINARY, b"") * 1000, 2)],
        ids=["pings", "tiny messages"],
    )
    def test_flood(self, server: Server, path: str, block: bytes, count: int) -> None:
        """From a client that does not read what it gets: others are served meanwhile."""
        with nothing_left(server), contextlib.ExitStack() as stack:
            peer = stack.enter_context(Named.at(server, path, receive_buffer=4096))

            def flood() -> None:
                peer.sock.settimeout(1)
                with contextlib.suppress(ConnectionError, TimeoutError):
                    for _ in range(count):
                        peer.send(block)

            flooding = threading.Thread(target=flood)
            flooding.start()
            converses(server, path, turns=20)
            flooding.join()
            peer.vanish()
            eventually(lambda: ends(server, peer.name))
        assert len(ends(server, peer.name)) == 1

    @on_each
    @of_both
    def test_answer_to_a_client_that_has_gone(self, server: Server, path: str) -> None:
        """The message is dropped, and the consumer is told of the end, once."""
        with nothing_left(server), contextlib.ExitStack() as stack:
            peer = stack.enter_context(Named.at(server, path))
            go_on = server.folder / peer.name
            peer.send_text(f"block {peer.name}")
            assert peer.read_message() == b"blocking"
            peer.vanish()
            go_on.touch()
            eventually(lambda: ends(server, peer.name), what="the consumer is told")
        assert ends(server, peer.name) == [1006]


class TestConsumers:
    """Consumers that raise, block, or are cancelled."""

    @on_each
    @of_both
    def test_connect_raises(self, server: Server, path: str) -> None:
        """500, and the log has it once."""
        name = new_id()
        with nothing_left(server), Named.at(server, path) as neighbour:
            with RawPeer(server.address) as peer:
                request = handshake_request(f"{path}?id={name}&fail=connect", server.host)
                peer.send(request)
                assert peer.read_response().status == 500
            neighbour.talk()
        assert server.stderr().count(f"Fault: connect of {name}") == 1
        assert ends(server, name) == []

    @on_each
    @of_both
    def test_receive_raises(self, server: Server, path: str) -> None:
        """1011, and the log has it once. Channels does not call `disconnect` then."""
        with nothing_left(server), Named.at(server, path) as neighbour:
            with Named.at(server, path, fails="receive") as peer:
                peer.send_text("hello")
                assert peer.read_to_eof().code == 1011
            neighbour.talk()
        assert server.stderr().count(f"Fault: receive of {peer.name}") == 1
        assert ends(server, peer.name) == []

    @on_each
    @of_both
    def test_disconnect_raises(self, server: Server, path: str) -> None:
        """The log has it once."""
        with nothing_left(server), Named.at(server, path) as neighbour:
            with Named.at(server, path, fails="disconnect") as peer:
                peer.talk()
                peer.send_close(4001)
                assert peer.read_to_eof().code == 4001
            eventually(lambda: f"Fault: disconnect of {peer.name}" in server.stderr())
            neighbour.talk()
        assert server.stderr().count(f"Fault: disconnect of {peer.name}") == 1
        assert ends(server, peer.name) == [4001]

    @on_each
    def test_cancelled(self, server: Server) -> None:
        """A consumer whose task is cancelled ends as one that fails."""
        with nothing_left(server), Named.at(server, ASYNC) as neighbour:
            with Named.at(server, ASYNC) as peer:
                peer.send_text("cancel")
                assert peer.read_to_eof().code == 1011
            neighbour.talk()

    @on_each
    def test_blocking(self, server: Server) -> None:
        """A handler that blocks delays all sync ones, no async one, and nothing is lost."""
        with nothing_left(server), contextlib.ExitStack() as stack:
            blocked = [stack.enter_context(Named.at(server, SYNC)) for _ in range(5)]
            others = [stack.enter_context(Named.at(server, path)) for path in PATHS]
            go_on = server.folder / blocked[0].name
            for peer in blocked:
                peer.send_text(f"block {go_on.name}")
            assert blocked[0].read_message() == b"blocking"
            others[PATHS.index(ASYNC)].talk()
            go_on.touch()
            for peer in others:
                peer.talk()
            for peer in blocked:
                while (text := peer.read_message()) != b"not blocking":
                    assert text == b"blocking"


@pytest.fixture
def redis() -> Iterator[Redis]:
    """A server for the layer."""
    with Redis() as found:
        yield found


@pytest.mark.needs("redis")
@on_own
def test_layer_s_server_goes_and_comes_back(kind: Kind, own_server: Own, redis: Redis) -> None:
    """Connections stay; consumers that end meanwhile are told; groups are as before afterwards."""
    backend = {"BACKEND": "dwebsocket.groups.redis", "LOCATION": redis.url, "TIMEOUT": 20}
    server = own_server(kind, settings={"WEBSOCKET_GROUPS": {"default": backend}})

    def tell(peer: RawPeer, text: str) -> bool:
        peer.send_text(f"tell {text}")
        return peer.read_message() == f"told {text}".encode()

    with nothing_left(server), contextlib.ExitStack() as stack:
        staying = [stack.enter_context(Named.at(server, path)) for path in PATHS]
        leaving = [stack.enter_context(Named.at(server, path)) for path in PATHS]
        with redis.away():
            for peer in staying:
                peer.talk()
                peer.send_text("tell nobody")
                assert peer.read_message() == b"away"
            for peer in leaving:
                peer.send_close(4001)
                assert peer.read_to_eof().code == 4001
            eventually(lambda: all(ends(server, peer.name) for peer in leaving))
        eventually(lambda: tell(staying[0], "again"), what="the server is back")
        assert staying[1].read_message() == b"told again"
    assert [ends(server, peer.name) for peer in leaving] == [[4001], [4001]]


@on_own
def test_process_ends(kind: Kind, own_server: Own) -> None:
    """Consumers in all states: each client gets a close frame, each `disconnect` its code."""
    server = own_server(kind, env=TIME_TO_END)
    with contextlib.ExitStack() as stack:
        peers = [stack.enter_context(Named.at(server, path)) for path in PATHS * 10]
        for peer in peers:
            peer.talk()
        server.send_signal(signal.SIGTERM)
        codes = []
        for peer in peers:
            while (frame := peer.read_frame()).opcode != CLOSE:
                pass
            peer.send_frame(CLOSE, frame.payload)
            codes.append([frame.code])
    assert all(code in ([1001], [1012]) for code in codes)
    server.wait(60)
    assert [ends(server, peer.name) for peer in peers] == codes
    assert "Traceback" not in server.stderr()
