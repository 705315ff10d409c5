"""Clients that talk and come back, as the pages in browsers do while a site is deployed."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from typing import TYPE_CHECKING, Generic, TypeVar

from support.raw_peer import CLOSE, PING, PONG, RawPeer, handshake_request
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.server import Server

BACKOFF_S = 0.5


class Client(threading.Thread):
    """A client that talks, and when it is sent away comes back after a random moment."""

    def __init__(self, server: Server, path: str, stop: threading.Event) -> None:
        super().__init__(daemon=True)
        self.server = server
        self.path = path
        self.stop = stop
        # Of each connection: how it was ended, and when.
        self.codes: list[int | None] = []
        self.told_at: list[float] = []
        self.refused = 0
        self.said = 0
        self.error: BaseException | None = None

    def run(self) -> None:
        """Connect, talk and come back until `stop` is set."""
        try:
            while not self.stop.is_set():
                if (peer := self.come(self.path)) is None:
                    self.refused += 1
                else:
                    with peer:
                        self.codes.append(self.talk(peer))
                    self.told_at.append(time.monotonic())
                self.stop.wait(BACKOFF_S * int.from_bytes(os.urandom(1), "big") / 255)
        except BaseException as error:
            self.error = error

    def come(self, path: str) -> RawPeer | None:
        """Open a connection; None where no process serves, or one that is about to end."""
        peer = None
        try:
            peer = RawPeer(self.server.address)
            peer.send(handshake_request(path, self.server.host))
            while b"\r\n\r\n" not in peer.buffer:
                if not peer._fill():
                    raise ConnectionError
            response = peer.read_response()
            if response.status == 101:
                return peer
            # ASGI servers have their own ways: some know no refusals but 403, and uvicorn sends
            # 500 to clients that are in the middle of their handshake when it ends.
            assert response.status in (403, 500, 503), response
        except OSError:
            pass
        if peer is not None:
            peer.close()
        return None

    def talk(self, peer: RawPeer) -> int | None:
        """Send a message now and then until the server closes; give its code."""
        while not self.stop.is_set():
            text = self.next_text()
            # The server may have sent its close frame and hung up.
            with contextlib.suppress(ConnectionError):
                peer.send_text(text)
            while (frame := peer.read_frame()).opcode == PING:
                peer.send_frame(PONG, frame.payload)
            if frame.opcode == CLOSE:
                with contextlib.suppress(OSError):
                    peer.send_frame(CLOSE, frame.payload)
                return frame.code
            self.on_answer(text, frame.payload.decode())
            self.said += 1
            self.stop.wait(0.2)
        peer.send_close()
        return None

    def next_text(self) -> str:
        """Give the next message."""
        return "hello"

    def on_answer(self, text: str, answer: str) -> None:
        """Take the answer to a message."""
        assert answer == text


C = TypeVar("C", bound=Client)


class Crowd(Generic[C]):
    """Many of them."""

    def __init__(self, server: Server, paths: tuple[str, ...], count: int, client: type[C]) -> None:
        self.stop = threading.Event()
        self.clients = [
            client(server, paths[number % len(paths)], self.stop) for number in range(count)
        ]

    def all_talk(self, within: float = 60) -> None:
        """Wait until each has sent a message from now on."""
        said = {client: client.said for client in self.clients}
        eventually(
            lambda: all(client.said > said[client] or client.error for client in self.clients),
            within,
            "all talk",
        )
        self.check()

    def check(self) -> None:
        """Fail with the first error of one of them."""
        for client in self.clients:
            assert client.error is None, repr(client.error)

    def told_since(self, moment: float) -> list[float]:
        """Return when they were sent away, in seconds from `moment` on."""
        return [at - moment for client in self.clients for at in client.told_at if at >= moment]

    def codes(self) -> set[int | None]:
        """Return how their connections were ended by the server."""
        return {code for client in self.clients for code in client.codes} - {None}


@contextlib.contextmanager
def crowd(
    server: Server,
    count: int,
    *paths: str,
    client: type[C] = Client,  # type: ignore[assignment]
) -> Iterator[Crowd[C]]:
    """Have clients talk and come back within the block; none may see anything but good ends."""
    clients = Crowd(server, paths or ("/echo/",), count, client)
    for client in clients.clients:
        client.start()
    try:
        clients.all_talk()
        yield clients
        clients.check()
    finally:
        clients.stop.set()
        for client in clients.clients:
            client.join(20)
    clients.check()
    assert not any(client.is_alive() for client in clients.clients)
