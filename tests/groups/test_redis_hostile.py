"""The redis backend at a hostile peer: calls fail in time, and nothing else does."""

from __future__ import annotations

import contextlib
import resource
import socket
import socketserver
import threading
from typing import TYPE_CHECKING

import pytest

from dwebsocket.exceptions import GroupUnavailable
from support.redis import Redis
from support.redis_backend import Member, backend, send, until_it_works
from support.selection import later
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

HELLO = b"%1\r\n$5\r\nproto\r\n:3\r\n"
OK = b"+OK\r\n"
# Replies to HELLO and what is sent behind it: nobody is asked for a command.
LOGGED_IN = HELLO + OK * 2
ANSWERS = {
    "nothing": b"",
    "http": b"HTTP/1.1 400 Bad Request\r\n\r\n",
    "noise": bytes(range(256)) * 100,
    "zeros": b"\0" * 100_000,
    "no number": b"*x\r\n",
    "a negative length": b"$-5\r\n" * 10,
    "a negative array": b"*-7\r\n" * 10,
    "a large array": b"*4294967295\r\n",
    "a huge array": b"*9223372036854775807\r\n",
    "a huge map": b"%9223372036854775807\r\n",
    "a huge text": b"$9223372036854775807\r\nx",
    "too huge a number": b":99999999999999999999999\r\n",
    "deep arrays": b"*1\r\n" * 100_000,
    "errors": b"-ERR no\r\n" * 10,
    "an error without text": b"-\r\n" * 10,
    "pushes": LOGGED_IN + b">3\r\n$7\r\nmessage\r\n$1\r\nx\r\n$1\r\ny\r\n" * 1000,
    "odd pushes": LOGGED_IN
    + b">0\r\n>1\r\n:1\r\n>2\r\n$7\r\nmessage\r\n:1\r\n>1\r\n$7\r\nmessage\r\n",
    "replies to nothing": LOGGED_IN + b":1\r\n" * 10_000,
    "confirmations of nothing": LOGGED_IN + b">3\r\n$9\r\nsubscribe\r\n$1\r\nx\r\n:1\r\n" * 1000,
    "a huge push": LOGGED_IN + b">9223372036854775807\r\n",
    "an attribute": LOGGED_IN + b"|1\r\n" * 1000,
    "half a push": LOGGED_IN + b">3\r\n$7\r\nmessage\r\n$1000000000\r\nx",
}

PASSWORD = "Sup3rSecretWord"


@contextlib.contextmanager
def peer(answer: bytes, *, closes: bool) -> Iterator[int]:
    """Run a server that answers each connection so, whatever it reads; give its port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        opened: list[socket.socket] = []

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    client, _ = listener.accept()
                    opened.append(client)
                    with contextlib.suppress(OSError):
                        client.sendall(answer)
                        if closes:
                            client.close()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()
            for client in opened:
                client.close()


@pytest.mark.parametrize(
    ("kind", "closes"),
    [
        *(("redis", False), ("redis+cluster", True), ("redis+sentinel", False)),
        *later(("redis", True), ("redis+cluster", False), ("redis+sentinel", True)),
    ],
)
@pytest.mark.parametrize("name", ANSWERS)
def test_a_peer_that_is_no_server(name: str, kind: str, closes: bool) -> None:
    """The exception comes in time; the engine goes on."""
    before = _memory_mib()
    with peer(ANSWERS[name], closes=closes) as port:
        service = "/main" if kind == "redis+sentinel" else ""
        made = backend(f"{kind}://127.0.0.1:{port}{service}/0", TIMEOUT=0.2)
        for _ in range(2):
            with pytest.raises(GroupUnavailable):
                made.count("room")
            with pytest.raises(GroupUnavailable):
                Member(made, "room")
    assert _memory_mib() - before < 200


@pytest.mark.parametrize(
    ("head", "unit"),
    [
        (b"+", b"x"),
        (b">3\r\n$7\r\nmessage\r\n$1\r\nx\r\n$3000000000\r\n", b"x"),
        (b">3\r\n$7\r\nmessage\r\n$1\r\nx\r\n*2000000000\r\n", b":1\r\n"),
        (b"*900000\r\n", b"*1\r\n:1\r\n"),
    ],
)
def test_a_reply_without_an_end(head: bytes, unit: bytes, caplog: pytest.LogCaptureFixture) -> None:
    """Ends the connection when it is larger than a server's can be."""

    class Flood(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with contextlib.suppress(OSError):
                self.request.sendall(LOGGED_IN + head)
                while True:
                    self.request.sendall(unit * 2**18)

    before = _memory_mib()
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Flood) as listener:
        thread = threading.Thread(target=listener.serve_forever, args=(0.01,))
        thread.start()
        made = backend(f"redis://127.0.0.1:{listener.server_address[1]}/0")
        with pytest.raises(GroupUnavailable):
            Member(made, "room")
        eventually(lambda: "too large a reply" in caplog.text, what="the reason is logged")
        listener.shutdown()
        thread.join()
    assert _memory_mib() - before < 300


@pytest.mark.parametrize(
    ("location", "options"),
    [
        ("redis://:{}@127.0.0.1:{}/0", {}),
        ("redis+cluster://user:{}@127.0.0.1:{}/0", {}),
        ("redis+sentinel://127.0.0.1:{1}/main/0", {"sentinel_password": PASSWORD}),
    ],
)
@pytest.mark.parametrize(
    "text",
    [
        "ERR unknown command 'HELLO', with args beginning with: '3' 'AUTH' 'default' '{}'",
        "ERR no access for 'HELLO 3 AUTH default {}'",
        "{} is wrong",
    ],
)
def test_a_peer_that_quotes_the_password(
    text: str, location: str, options: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    """It is in no exception or log record."""
    answer = f"-{text.format(PASSWORD)}\r\n".encode() + OK * 3
    with peer(answer, closes=False) as port:
        made = backend(location.format(PASSWORD, port), TIMEOUT=0.2, OPTIONS=options)
        with pytest.raises(GroupUnavailable) as caught:
            send(made, "room", "x")
    assert "Secret" not in str(caught.value)
    assert "HELLO" in str(caught.value) or "password" in str(caught.value)
    eventually(lambda: "is lost" in caplog.text, what="it is logged")
    assert "Secret" not in caplog.text


def _memory_mib() -> float:
    """The most that this process has ever taken."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@pytest.mark.needs("redis")
def test_the_engine_survives_all_of_them() -> None:
    """It serves a true server afterwards."""
    for name in ("deep arrays", "a huge array", "noise"):
        with peer(ANSWERS[name], closes=False) as port:
            bad = backend(f"redis://127.0.0.1:{port}/0", TIMEOUT=0.2)
            with pytest.raises(GroupUnavailable):
                send(bad, "room", "x")
    with Redis() as server:
        made = backend(server.url)
        member = Member(made, "room")
        send(made, "room", "x")
        assert member.receive() == "x"


@pytest.mark.needs("redis")
def test_more_than_members_take() -> None:
    """What comes faster than it can be handed on waits in the server, not here."""
    with Redis("--client-output-buffer-limit", "pubsub 8mb 8mb 60") as server:
        made = backend(server.url)
        member = Member(made, "room")
        before = _memory_mib()
        message = "x" * 1024 * 1024
        for _ in range(300):
            until_it_works(lambda: send(made, "room", message))
        until_it_works(lambda: send(made, "room", "end"))
        assert _memory_mib() - before < 500
        eventually(lambda: made.core.status()[0][0] is None, what="it is connected")
        del member
