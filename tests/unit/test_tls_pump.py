"""The pump for encrypted bytes: ends, pressure, and TLS that writes to read or reads to write."""

from __future__ import annotations

import _socket
import contextlib
import os
import select
import ssl
import warnings
from typing import TYPE_CHECKING, Any

import pytest

from dwebsocket.servers import tls_pump
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CHUNK = 64 * 1024


class Cipher:
    """TLS without encryption: it uses its socket as `ssl` does, and as a test asks."""

    def __init__(self, sock: _socket.socket) -> None:
        self.sock = sock
        self.before_read: list[Exception] = []
        self.before_write: list[Exception] = []
        self.close_notify_sent = False

    def read(self, length: int, buffer: memoryview) -> int:
        if self.before_read:
            raise self.before_read.pop(0)
        try:
            return self.sock.recv_into(buffer, length)
        except BlockingIOError:
            raise ssl.SSLWantReadError from None

    def write(self, data: memoryview | bytes) -> int:
        if self.before_write:
            raise self.before_write.pop(0)
        try:
            return self.sock.send(data)
        except BlockingIOError:
            raise ssl.SSLWantWriteError from None

    def shutdown(self) -> None:
        self.close_notify_sent = True
        raise ssl.SSLWantReadError


class Line:
    """A client and an engine with a pipe between them."""

    def __init__(self, carrier: tls_pump.Pump) -> None:
        self.client, self.far = _socket.socketpair()
        self.engine, self.near = _socket.socketpair()
        for sock in (self.far, self.near):
            sock.settimeout(0)
        for sock in (self.client, self.engine):
            sock.settimeout(60)
        self.cipher = Cipher(self.far)
        self.pipe = tls_pump.Pipe(self.cipher, self.far, self.near)
        self.carrier = carrier

    def open(self) -> Line:
        """Let the pump carry it."""
        self.carrier.add(self.pipe)
        return self

    @property
    def is_closed(self) -> bool:
        """Whether the pump has closed both of its sockets."""
        return self.far.fileno() == self.near.fileno() == -1


@pytest.fixture(scope="module", params=["epoll", "poll"])
def carrier(request: pytest.FixtureRequest) -> Iterator[tls_pump.Pump]:
    """A pump as on Linux, and one as on macOS. Its thread waits for ever, as in a server."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "poll":
            patch.delattr(select, "epoll")
        found = tls_pump.Pump()
    found.start()
    yield found
    found.settle(60)


@pytest.fixture
def make(carrier: tls_pump.Pump) -> Iterator[Callable[[], Line]]:
    """Make lines; all are closed at the end."""
    lines: list[Line] = []

    def new() -> Line:
        lines.append(Line(carrier))
        return lines[-1]

    yield new
    for line in lines:
        line.client.close()
        line.engine.close()


def read_all(sock: _socket.socket) -> bytes:
    """Read to the end of the stream."""
    seen = b""
    while data := sock.recv(1 << 16):
        seen += data
    return seen


def fill(sock: _socket.socket) -> int:
    """Write until no more is taken, and return how much that was."""
    sock.settimeout(0.3)
    sent = 0
    with contextlib.suppress(TimeoutError):
        while True:
            sent += sock.send(bytes(CHUNK))
    sock.settimeout(60)
    return sent


def test_bytes_go_both_ways(make: Callable[[], Line]) -> None:
    """In order, and the ends behind them."""
    line = make().open()
    line.client.sendall(b"question")
    assert line.engine.recv(100) == b"question"
    line.engine.sendall(b"answer")
    assert line.client.recv(100) == b"answer"
    line.client.shutdown(_socket.SHUT_WR)
    assert line.engine.recv(100) == b""
    line.engine.sendall(b"last words")
    line.engine.close()
    assert read_all(line.client) == b"last words"
    eventually(lambda: line.is_closed, 60)
    assert line.cipher.close_notify_sent


def test_thread_that_fails_goes_on(
    make: Callable[[], Line],
    carrier: tls_pump.Pump,
    monkeypatch: pytest.MonkeyPatch,
    request_log: Callable[..., list[Any]],
) -> None:
    """It carries all connections, so a failure that concerns none of them must not end it."""

    def fail() -> None:
        raise OSError(12, "Cannot allocate memory")

    line = make().open()
    with monkeypatch.context() as failing:
        failing.setattr(carrier, "_tell_of_quiet", fail)
        line.client.sendall(b"question")
        assert line.engine.recv(100) == b"question"
        eventually(lambda: request_log("dwebsocket"), what="it is logged")
    line.engine.sendall(b"answer")
    assert line.client.recv(100) == b"answer"


def test_engine_ends_first(make: Callable[[], Line]) -> None:
    """The client sees the end, and bytes that it still sends are taken in and dropped."""
    line = make().open()
    line.engine.sendall(b"bye")
    line.engine.shutdown(_socket.SHUT_WR)
    assert read_all(line.client) == b"bye"
    line.client.sendall(b"to nobody" * 1000)
    line.client.close()
    assert line.engine.recv(100) == b""
    eventually(lambda: line.is_closed, 60)


def test_engine_that_does_not_listen_pushes_back(make: Callable[[], Line]) -> None:
    """The bytes on the way are bounded, and all of them arrive in the end."""
    line = make().open()
    sent = fill(line.client)
    # The buffers of two socket pairs, and a chunk.
    assert sent < 2 * 1024 * 1024
    line.client.shutdown(_socket.SHUT_WR)
    assert len(read_all(line.engine)) == sent


def test_client_that_does_not_listen_pushes_back(make: Callable[[], Line]) -> None:
    """The same the other way, while the client's bytes go through."""
    line = make().open()
    sent = fill(line.engine)
    assert sent < 2 * 1024 * 1024
    line.client.sendall(b"still here")
    assert line.engine.recv(100) == b"still here"
    line.engine.shutdown(_socket.SHUT_WR)
    assert len(read_all(line.client)) == sent


def test_client_that_never_takes_the_last_bytes(
    make: Callable[[], Line], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has its time when the engine is done, and no more."""
    monkeypatch.setattr(tls_pump, "_LINGER_S", 0.2)
    line = make().open()
    fill(line.engine)
    line.engine.close()
    eventually(lambda: line.is_closed, 60)


def test_a_pipe_that_is_given_up_is_closed_once(
    make: Callable[[], Line], carrier: tls_pump.Pump, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was about to have another turn: its descriptors' numbers may be another client's then."""
    monkeypatch.setattr(tls_pump, "_LINGER_S", 0.0)
    # Small pieces: the last bytes take many turns.
    monkeypatch.setattr(carrier, "_scratch", memoryview(bytearray(16)))
    line, closed = make(), []
    close = line.pipe.close
    monkeypatch.setattr(line.pipe, "close", lambda: closed.append(close()))
    line.engine.sendall(bytes(10_000))
    line.engine.close()
    line.open()
    read_all(line.client)
    for _ in range(3):
        # Each time the pump has had a turn.
        make().open().engine.close()
        carrier.settle(60)
    assert closed == [None]


def test_a_slow_client_keeps_its_time_when_a_quick_one_ends(make: Callable[[], Line]) -> None:
    """It gets its last bytes all the same."""
    slow, quick = make().open(), make().open()
    sent = fill(slow.engine)
    slow.engine.close()
    quick.engine.close()
    assert read_all(quick.client) == b""
    quick.client.close()
    eventually(lambda: quick.is_closed, 60)
    # The pump has been round since.
    other = make().open()
    other.client.sendall(b"question")
    assert other.engine.recv(100) == b"question"
    assert len(read_all(slow.client)) == sent


def test_client_that_vanishes_behind_a_silent_view(make: Callable[[], Line]) -> None:
    """Its end is noticed although nothing more is read from it."""
    line = make().open()
    fill(line.client)
    line.client.close()
    # All that it said is there, and then the end.
    assert read_all(line.engine)


@pytest.mark.parametrize("want", [ssl.SSLWantReadError, ssl.SSLWantWriteError])
def test_reading_may_want_something_first(
    make: Callable[[], Line], want: type[ssl.SSLError]
) -> None:
    """A key update makes TLS write before it reads on."""
    line = make()
    line.cipher.before_read = [want(), want()]
    line.open().client.sendall(b"question")
    assert line.engine.recv(100) == b"question"


def test_writing_may_want_to_read_first(make: Callable[[], Line]) -> None:
    """A handshake in the middle makes TLS read before it writes on."""
    line = make()
    line.cipher.before_write = [ssl.SSLWantReadError()]
    line.open().engine.sendall(b"answer")
    line.client.sendall(b"handshake")
    assert line.client.recv(100) == b"answer"


@pytest.mark.parametrize("error", [ssl.SSLError(1, "bad record mac"), ConnectionResetError()])
def test_broken_encryption_costs_one_connection(make: Callable[[], Line], error: Exception) -> None:
    """Both sides see the end, the others go on."""
    other = make().open()
    line = make()
    line.cipher.before_read = [error]
    line.open()
    assert line.engine.recv(100) == b""
    assert line.client.recv(100) == b""
    other.client.sendall(b"still here")
    assert other.engine.recv(100) == b"still here"


def test_bug_costs_one_connection(
    make: Callable[[], Line], caplog: pytest.LogCaptureFixture
) -> None:
    """The log says which; the others go on."""
    other = make().open()
    line = make()
    line.cipher.before_read = [KeyError("a bug")]
    line.open()
    assert line.engine.recv(100) == b""
    assert "An encrypted WebSocket is lost" in caplog.text
    other.client.sendall(b"still here")
    assert other.engine.recv(100) == b"still here"


def test_settling(make: Callable[[], Line], carrier: tls_pump.Pump) -> None:
    """It waits for the last connection, and no longer than it may."""
    carrier.settle(60)
    line = make().open()
    line.client.sendall(b"first")
    assert line.engine.recv(100) == b"first"
    carrier.settle(0.05)
    assert not line.is_closed
    line.client.close()
    line.engine.close()
    carrier.settle(60)
    assert line.is_closed


def test_settling_takes_no_descriptor(
    carrier: tls_pump.Pump, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that ends may have none left."""

    def refuse(*_: object) -> None:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(tls_pump._socket, "socketpair", refuse)
    carrier.settle(60)


def test_forked_child_lets_go(make: Callable[[], Line], carrier: tls_pump.Pump) -> None:
    """The child's copies are closed without a close_notify; the parent's connection goes on."""
    line = make().open()
    line.client.sendall(b"before")
    assert line.engine.recv(100) == b"before"
    with warnings.catch_warnings():
        # That forking beside threads is dangerous is why the pump has to let go.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        carrier.abandon()
        os._exit(0 if line.is_closed else 1)
    assert os.waitpid(child, 0)[1] == 0
    line.client.sendall(b"after")
    assert line.engine.recv(100) == b"after"
    line.engine.sendall(b"all")
    assert line.client.recv(100) == b"all"
