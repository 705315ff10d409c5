"""Servers of others on loopback, for our client: `websockets` in a thread, and a CONNECT proxy."""

from __future__ import annotations

import base64
import contextlib
import select
import socket
import threading
from typing import TYPE_CHECKING, Any

from websockets.sync.server import ServerConnection, serve

from support.certificates import server_file

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Handler = Callable[[ServerConnection], None]


def echo(connection: ServerConnection) -> None:
    """Send each message back until the client closes."""
    for message in connection:
        connection.send(message)


@contextlib.contextmanager
def far_server(handler: Handler = echo, **options: Any) -> Iterator[str]:
    """Run a server of `websockets`, and give its URL without a path's end."""
    options.setdefault("max_size", None)
    # With ours closed first, its threads would wait for an answer to their own close frames.
    options.setdefault("close_timeout", 1)
    options.setdefault("open_timeout", 60)
    scheme = "wss" if options.get("ssl") else "ws"
    with serve(handler, "127.0.0.1", 0, **options) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"{scheme}://127.0.0.1:{server.socket.getsockname()[1]}"
        finally:
            server.shutdown()
            thread.join(20)


def server_context(pem: Path | None = None) -> ssl.SSLContext:
    """Give a context with a certificate, the tests' own one by default."""
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem or server_file())
    return context


class ConnectProxy:
    """
    A small HTTP proxy that knows CONNECT only; use as a context manager.

    Args:
        login: The user and password that it wants, as `user:password`.
        answer: Sent in place of going on, if given.
    """

    def __init__(self, login: str = "", answer: bytes = b"") -> None:
        self.login, self.answer = login, answer
        #: The servers that were asked for.
        self.asked: list[str] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._threads = [threading.Thread(target=self._listen, daemon=True)]

    @property
    def url(self) -> str:
        """The URL for the variable `HTTP_PROXY`, with the login."""
        login = f"{self.login}@" if self.login else ""
        return f"http://{login}127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> ConnectProxy:  # noqa: PYI034
        self._threads[0].start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(20)
            assert not thread.is_alive()

    def _listen(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                thread = threading.Thread(target=self._serve, args=(client,), daemon=True)
                self._threads.append(thread)
                thread.start()

    def _serve(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            client.settimeout(20)
            head = client.recv(65536).decode()
            method, target, _ = head.split("\r\n")[0].split(" ")
            assert method == "CONNECT"
            self.asked.append(target)
            wanted = base64.b64encode(self.login.encode()).decode()
            if self.answer:
                client.sendall(self.answer)
            elif self.login and f"Proxy-Authorization: Basic {wanted}\r\n" not in head:
                client.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n")
            else:
                host, _, port = target.rpartition(":")
                with socket.create_connection((host, int(port))) as server:
                    # As of old and of small proxies.
                    client.sendall(b"HTTP/1.0 200 Connection established\r\n\r\n")
                    _relay(client, server)


def _relay(one: socket.socket, other: socket.socket) -> None:
    """Pass bytes on until either side ends."""
    while True:
        ready, _, _ = select.select([one, other], [], [], 20)
        if not ready:
            return
        for source in ready:
            data = source.recv(65536)
            if not data:
                return
            (other if source is one else one).sendall(data)
