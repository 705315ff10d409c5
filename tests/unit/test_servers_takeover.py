"""How a client's connection changes hands, over real sockets."""

from __future__ import annotations

import fcntl
import os
import resource
import select
import socket
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from visit import descriptors

from dwebsocket.servers.contract import Client
from dwebsocket.servers.takeover import Takeover

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Pair = tuple[socket.socket, socket.socket]


def unix_pair() -> Pair:
    """Make both ends of a Unix connection."""
    return socket.socketpair()


def tcp_pair() -> Pair:
    """Make both ends of a TCP connection."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        server = listener.accept()[0]
    return client, server


@pytest.fixture(params=[unix_pair, tcp_pair], ids=["unix", "tcp"])
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    """The client's and the server's end; neither outlives the test."""
    pair: Pair = request.param()
    for end in pair:
        end.settimeout(60)
    yield pair
    for end in pair:
        end.close()


@contextmanager
def room_for(count: int) -> Iterator[None]:
    """Let the process open ``count`` more descriptors."""
    # The system gives the lowest ones first.
    lowest = [os.open(os.devnull, os.O_RDONLY) for _ in range(count + 1)]
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest[count], limits[1]))
    for number in lowest:
        os.close(number)
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def client_of(
    server: socket.socket,
    read_early: Callable[[], bytes] = lambda: b"",
    let_go: Callable[[], None] = lambda: None,
) -> Client:
    """Describe a connection as a server family does."""
    return Client("a test", server.fileno(), read_early, let_go)


class TestExchange:
    """After it the server holds a placeholder."""

    def test_client_talks_to_the_new_descriptor(self, pair: Pair) -> None:
        """In both directions."""
        client, server = pair
        takeover = Takeover(client_of(server))
        descriptor, early = takeover.exchange()
        assert early == b""
        client.sendall(b"to us")
        assert os.read(descriptor, 100) == b"to us"
        os.write(descriptor, b"to the client")
        assert client.recv(100) == b"to the client"
        takeover.finish()
        os.close(descriptor)
        assert client.recv(100) == b""

    def test_nothing_of_the_server_reaches_the_client(self, pair: Pair) -> None:
        """Whatever it writes, shuts down or closes."""
        client, server = pair
        takeover = Takeover(client_of(server))
        descriptor, _ = takeover.exchange()
        server.sendall(b"HTTP/1.1 101 Switching Protocols\r\n\r\n")
        server.shutdown(socket.SHUT_RDWR)
        server.close()
        takeover.finish()
        assert select.select([client], [], [], 0)[0] == []
        os.write(descriptor, b"only this")
        os.close(descriptor)
        assert client.recv(100) == b"only this"
        assert client.recv(100) == b""

    def test_server_reads_the_end_at_once(self, pair: Pair) -> None:
        """Some wait for it before they close."""
        _, server = pair
        takeover = Takeover(client_of(server))
        descriptor, _ = takeover.exchange()
        assert select.select([server], [], [], 0)[0] == [server]
        assert server.recv(100) == b""
        takeover.finish()
        os.close(descriptor)

    def test_server_keeps_its_number(self, pair: Pair) -> None:
        """It is registered under it in the server's poller."""
        _, server = pair
        number = server.fileno()
        takeover = Takeover(client_of(server))
        descriptor, _ = takeover.exchange()
        assert server.fileno() == number != descriptor
        takeover.finish()
        os.close(descriptor)

    @pytest.mark.parametrize("blocking", [True, False])
    def test_placeholder_blocks_as_the_socket_did(self, pair: Pair, blocking: bool) -> None:
        """An asynchronous server must not be blocked."""
        _, server = pair
        os.set_blocking(server.fileno(), blocking)
        takeover = Takeover(client_of(server))
        descriptor, _ = takeover.exchange()
        assert os.get_blocking(server.fileno()) is blocking
        takeover.finish()
        os.close(descriptor)

    def test_nothing_is_inherited_by_programs(self, pair: Pair) -> None:
        """A started program must not keep the client's connection open."""
        _, server = pair
        takeover = Takeover(client_of(server))
        descriptor, _ = takeover.exchange()
        for number in (descriptor, server.fileno()):
            assert fcntl.fcntl(number, fcntl.F_GETFD) & fcntl.FD_CLOEXEC
        takeover.finish()
        os.close(descriptor)

    def test_early_bytes_are_read_from_the_placeholder(self, pair: Pair) -> None:
        """A buffered reader that is read to its end gives what it holds and does not wait."""
        client, server = pair
        reader = server.makefile("rb")
        client.sendall(b"GET / HTTP/1.1\r\n\r\nearly")
        assert [reader.readline(), reader.readline()] == [b"GET / HTTP/1.1\r\n", b"\r\n"]
        client.sendall(b" late")
        takeover = Takeover(client_of(server, read_early=reader.read))
        descriptor, early = takeover.exchange()
        assert early + os.read(descriptor, 100) == b"early late"
        reader.close()
        takeover.finish()
        os.close(descriptor)

    def test_lets_go_last(self, pair: Pair) -> None:
        """The object that is let go of may hold the early bytes."""
        _, server = pair
        order: list[str] = []

        def read_early() -> bytes:
            order.append("early")
            return b""

        takeover = Takeover(client_of(server, read_early, lambda: order.append("let go")))
        assert order == []
        descriptor, _ = takeover.exchange()
        assert order == ["early", "let go"]
        takeover.finish()
        os.close(descriptor)


class TestFinish:
    """Nothing is left behind, however far it got."""

    def test_after_the_exchange(self, pair: Pair) -> None:
        """Only the descriptor that was handed over stays."""
        _, server = pair
        before = descriptors()
        takeover = Takeover(client_of(server))
        descriptor, _ = takeover.exchange()
        server.sendall(b"x" * 1000)
        takeover.finish()
        os.close(descriptor)
        assert descriptors() <= before

    def test_without_the_exchange(self, pair: Pair) -> None:
        """The connection is the server's as before."""
        client, server = pair
        before = descriptors()
        takeover = Takeover(client_of(server))
        takeover.finish()
        assert descriptors() <= before
        server.sendall(b"still here")
        assert client.recv(100) == b"still here"

    def test_may_be_repeated(self, pair: Pair) -> None:
        """And closes no descriptor that other code has opened since."""
        _, server = pair
        takeover = Takeover(client_of(server))
        takeover.finish()
        other = [os.open(os.devnull, os.O_RDONLY) for _ in range(4)]
        before = descriptors()
        takeover.finish()
        del takeover
        assert descriptors() <= before
        for number in other:
            os.close(number)

    def test_happens_by_itself(self, pair: Pair) -> None:
        """A response that a middleware has replaced is never closed."""
        _, server = pair
        before = descriptors()
        Takeover(client_of(server))
        assert descriptors() <= before

    def test_server_that_closes_later_sees_no_reset(self, pair: Pair) -> None:
        """Its bytes were read, so its end of the placeholder closes without a reset."""
        _, server = pair
        takeover = Takeover(client_of(server))
        descriptor, _ = takeover.exchange()
        server.sendall(b"x" * 50_000)
        takeover.finish()
        assert server.recv(100) == b""
        os.close(descriptor)

    def test_after_the_early_bytes_could_not_be_read(self, pair: Pair) -> None:
        """The client is lost, but nothing else."""
        client, server = pair
        before = descriptors()

        def fail() -> bytes:
            raise AttributeError("no such buffer")

        takeover = Takeover(client_of(server, read_early=fail))
        with pytest.raises(AttributeError, match="no such buffer"):
            takeover.exchange()
        takeover.finish()
        assert descriptors() <= before
        assert client.recv(100) == b""


class TestPrepare:
    """Everything that may fail happens here."""

    @pytest.mark.parametrize("left", [0, 1, 2])
    def test_no_descriptor_left(self, pair: Pair, left: int) -> None:
        """At each step; nothing stays behind."""
        client = client_of(pair[1])
        before = descriptors()
        with room_for(left), pytest.raises(OSError, match="Too many open files"):
            Takeover(client)
        assert descriptors() <= before

    def test_connection_that_is_closed(self, pair: Pair) -> None:
        """The server has given up already."""
        _, server = pair
        client = client_of(server)
        server.close()
        with pytest.raises(OSError, match="Bad file descriptor"):
            Takeover(client)
