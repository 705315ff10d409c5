"""Servers that encrypt by themselves: the behaviour that TLS adds to that of all servers."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
import subprocess
import threading
from collections import Counter, deque
from typing import TYPE_CHECKING

import pytest
import websockets.asyncio.client
from websockets.sync.client import connect

from support.certificates import client_context
from support.idle import outlive
from support.raw_peer import BINARY, CLOSE, TEXT, RawPeer, build_frame, handshake_request
from support.server import (
    GUNICORN_GTHREAD_TLS,
    OLDER_GUNICORNS_TLS,
    TLS,
    Kind,
    Server,
    thread_count,
)
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from typing_extensions import Self

pytestmark = pytest.mark.extended("concerns servers that encrypt only")

encrypted = pytest.mark.parametrize("server", TLS, indirect=True, ids=str)
MEBIBYTE = 1 << 20
VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]


class Session:
    """A client whose TLS records are made in memory, so that a test decides what is sent when."""

    def __init__(self, server: Server, version: ssl.TLSVersion | None = None) -> None:
        self.sock = socket.create_connection(server.address, timeout=20)
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        context = client_context(version)
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_hostname="127.0.0.1")
        while True:
            try:
                self.tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                self.flush()
                self.fill()
        self.flush()

    def flush(self) -> None:
        """Send the records that have been made."""
        self.sock.sendall(self.outgoing.read())

    def fill(self) -> None:
        """Take in what the server has sent."""
        data = self.sock.recv(1 << 16)
        self.incoming.write(data) if data else self.incoming.write_eof()

    def read(self) -> bytes:
        """Return decrypted bytes; none at the server's close_notify."""
        while True:
            try:
                return self.tls.read(1 << 16)
            except ssl.SSLWantReadError:
                self.fill()
            except ssl.SSLZeroReturnError:
                return b""

    def read_until(self, end: bytes) -> bytes:
        """Return decrypted bytes up to `end`."""
        seen = b""
        while end not in seen:
            data = self.read()
            assert data, seen
            seen += data
        return seen

    def send_close_notify(self) -> None:
        """Send close_notify; the other direction stays open."""
        with contextlib.suppress(ssl.SSLWantReadError):
            self.tls.unwrap()
        self.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.sock.close()


@encrypted
@pytest.mark.parametrize("version", VERSIONS, ids=str)
class TestStream:
    """The bytes, whatever records they come in."""

    def test_mebibyte_both_ways(self, server: Server, version: ssl.TLSVersion) -> None:
        """Large messages of many records, several at once."""
        data = os.urandom(MEBIBYTE)
        with RawPeer.open(server, "/echo-exact/", tls=client_context(version)) as peer:
            for _ in range(3):
                peer.send_frame(BINARY, data)
            for _ in range(3):
                assert peer.read_message() == data

    def test_early_bytes(self, server: Server, version: ssl.TLSVersion) -> None:
        """Frames in the request's record, in records behind it and in half a record all arrive."""
        with Session(server, version) as client:
            frames = [build_frame(TEXT, b"message %d" % n) for n in range(40)]
            client.tls.write(handshake_request("/echo/", server.host) + frames[0])
            for frame in frames[1:]:
                client.tls.write(frame)
            records = client.outgoing.read()
            client.sock.sendall(records[:-10])
            seen = client.read_until(b"message 38")
            client.sock.sendall(records[-10:])
            seen += client.read_until(b"message 39")
            body = seen.partition(b"\r\n\r\n")[2]
            assert body == b"".join(
                build_frame(TEXT, b"message %d" % n, mask=None) for n in range(40)
            )

    def test_a_byte_at_a_time(self, server: Server, version: ssl.TLSVersion) -> None:
        """Records of one byte."""
        with RawPeer.open(server, "/echo/", tls=client_context(version)) as peer:
            for byte in build_frame(TEXT, b"slowly"):
                peer.send(bytes([byte]))
            assert peer.read_message() == b"slowly"


@encrypted
@pytest.mark.needs("openssl")
@pytest.mark.parametrize("command", [b"k\n", b"K\n"], ids=["one way", "both ways"])
def test_key_update(server: Server, command: bytes) -> None:
    """New keys in the middle of a conversation, for one direction or both."""
    client = subprocess.Popen(
        ["openssl", "s_client", "-connect", server.host, "-tls1_3"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        bufsize=0,
    )
    assert client.stdin is not None
    assert client.stdout is not None
    unmasked = {"mask": bytes(4)}
    with client, contextlib.closing(client.stdin):
        seen = b""
        for said, answer in (
            (b"", b"Verify return code"),
            (handshake_request("/echo/", server.host), b"\r\n\r\n"),
            (build_frame(TEXT, b"before", **unmasked), b"\x81\x06before"),
            (command, b"KEYUPDATE"),
            (build_frame(TEXT, b"after", **unmasked), b"\x81\x05after"),
        ):
            client.stdin.write(said)
            while answer not in seen:
                data = client.stdout.read(4096)
                assert data, seen
                seen += data
            seen = seen.partition(answer)[2]
        client.kill()


@encrypted
class TestEnds:
    """How the two protocols end together."""

    def test_close_notify_comes_behind_the_close_frame(self, server: Server) -> None:
        """The client reads the close frame, then a proper end of the stream."""
        with Session(server) as client:
            client.tls.write(handshake_request("/returns-at-once/", server.host))
            client.flush()
            client.read_until(b"\x88\x02\x03\xe8")
            client.tls.write(build_frame(CLOSE, b"\x03\xe8"))
            client.flush()
            assert client.read() == b""

    def test_half_close(self, server: Server) -> None:
        """After the client's close_notify the server may still finish what it says."""
        with server.nothing_left(), Session(server) as client:
            client.tls.write(handshake_request("/reports-the-end/notified/", server.host))
            client.flush()
            client.read_until(b"\r\n\r\n")
            client.send_close_notify()
            ending = eventually(lambda: server.get("/ending/notified/").json()["ending"], 60)
            assert (ending[0], ending[2]) in [(1006, True), (None, True)]

    def test_garbage_ends_one_connection(self, server: Server) -> None:
        """Bytes that are no TLS record end this connection and no other."""
        with (
            server.quiet(),
            server.nothing_left(),
            RawPeer.open(server, "/echo/") as other,
            Session(server) as client,
        ):
            client.tls.write(handshake_request("/echo/", server.host))
            client.flush()
            client.read_until(b"\r\n\r\n")
            client.sock.sendall(b"this is no TLS record, whatever it may be" * 10)
            with contextlib.suppress(ConnectionResetError):
                while client.sock.recv(4096):
                    pass
            other.send_text("still here")
            assert other.read_message() == b"still here"


@encrypted
class TestPressure:
    """Neither side can make the server hold bytes that the other does not take."""

    def test_a_view_that_does_not_read(self, server: Server) -> None:
        """The client can send only so much; its end is noticed all the same."""
        with server.nothing_left(), RawPeer.open(server, "/never-read/") as peer:
            frame = build_frame(BINARY, bytes(65536))
            peer.sock.settimeout(0.5)
            sent = 0
            with contextlib.suppress(TimeoutError, ssl.SSLWantWriteError):
                while sent < 200 * MEBIBYTE:
                    peer.sock.sendall(frame)
                    sent += len(frame)
            assert sent < 100 * MEBIBYTE
            peer.vanish()

    def test_a_client_that_does_not_read(self, server: Server) -> None:
        """While it does not, the others are served; when it does, nothing is missing."""
        data = os.urandom(MEBIBYTE)
        with (
            RawPeer.open(server, "/echo-exact/", receive_buffer=8192) as slow,
            RawPeer.open(server, "/echo/") as other,
        ):
            writer = threading.Thread(
                target=lambda: [slow.send_frame(BINARY, data) for _ in range(1)]
            )
            writer.start()
            for number in range(50):
                other.send_text(str(number))
                assert other.read_message() == str(number).encode()
            writer.join(20)
            assert slow.read_message() == data


@pytest.mark.every("much like a few, which others open")
@encrypted
@pytest.mark.slow
def test_two_hundred_idle(server: Server) -> None:
    """They cost no thread but their views', and all still echo after a while."""
    with server.quiet(), server.nothing_left():
        with RawPeer.open_many(server, "/echo/", 200) as peers:
            # One for each view, and those that are always there.
            assert thread_count(server.worker) < 220
            outlive(server, peers, pages=4)


@pytest.mark.parametrize("server", OLDER_GUNICORNS_TLS, indirect=True, ids=str)
def test_older_gunicorns(server: Server) -> None:
    """The conversation, early bytes included, and its end."""
    with server.nothing_left():
        with RawPeer.open(server, "/echo/", early=build_frame(TEXT, b"early")) as peer:
            assert peer.read_message() == b"early"
            peer.send_text("later")
            assert peer.read_message() == b"later"
            peer.send_close()
            assert peer.read_to_eof().code == 1000
        assert server.get("/echo/").status == 200


def many_at_once(server: Server, context: ssl.SSLContext, connections: int) -> Counter[str]:
    """Hold conversations from 60 threads; return how they ended."""
    endings: Counter[str] = Counter()
    left = deque(range(connections))

    def converse() -> None:
        while True:
            try:
                number = left.popleft()
            except IndexError:
                return
            message = f"number {number} " * 20
            try:
                with connect(
                    server.url("/echo-str/"), ssl=context, proxy=None, open_timeout=60
                ) as client:
                    client.send(message)
                    assert client.recv(20) == message
                endings[str(client.close_code)] += 1
            except Exception as error:
                endings[repr(error)] += 1

    threads = [threading.Thread(target=converse) for _ in range(60)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return endings


WITHOUT_TICKETS = """
def ssl_context(config, default):
    context = default()
    context.num_tickets = 0
    return context
"""


@pytest.mark.slow
class TestNoneIsLost:
    """
    400 connections from 60 threads, and each ends as it should.

    A threaded client on TLS 1.3 needs a server without session tickets for that: `websockets.sync`
    reads in one thread and writes in another, and OpenSSL allows that for no connection. It nearly
    always goes well, but a ticket makes the reading thread change what the writing one uses.
    Servers that take nothing over lose as many (docs/servers/tls.md).
    """

    @pytest.mark.parametrize(
        "run", [1, *(pytest.param(run, marks=pytest.mark.every("once more")) for run in (2, 3))]
    )
    def test_threads_without_tickets(
        self, run: int, own_server: Callable[..., Server], tmp_path: Path
    ) -> None:
        """TLS 1.3, no tickets."""
        config = tmp_path / "gunicorn_config.py"
        config.write_text(WITHOUT_TICKETS)
        server = own_server(GUNICORN_GTHREAD_TLS, options=("--config", str(config)))
        context = client_context(ssl.TLSVersion.TLSv1_3)
        with server.quiet():
            assert many_at_once(server, context, 400) == {"1000": 400}

    @pytest.mark.every("much like another case")
    def test_threads_with_tls_1_2(self, own_server: Callable[..., Server]) -> None:
        """Tickets of TLS 1.2 belong to the handshake."""
        server = own_server(GUNICORN_GTHREAD_TLS)
        context = client_context(ssl.TLSVersion.TLSv1_2)
        with server.quiet():
            assert many_at_once(server, context, 400) == {"1000": 400}

    @pytest.mark.parametrize("kind", TLS, ids=str)
    def test_one_thread_with_tickets(self, kind: Kind, own_server: Callable[..., Server]) -> None:
        """TLS 1.3 with tickets, 60 at a time, by a client that touches TLS from one thread."""
        server = own_server(kind)
        context = client_context(ssl.TLSVersion.TLSv1_3)

        async def converse(number: int, gate: asyncio.Semaphore) -> int | None:
            async with (
                gate,
                websockets.asyncio.client.connect(
                    server.url("/echo-str/"), ssl=context, proxy=None, open_timeout=60
                ) as client,
            ):
                await client.send(str(number))
                assert await client.recv() == str(number)
            return client.close_code

        async def everybody() -> Counter[int | None]:
            gate = asyncio.Semaphore(60)
            return Counter(await asyncio.gather(*(converse(n, gate) for n in range(400))))

        with server.quiet():
            assert asyncio.run(everybody()) == {1000: 400}
