"""A client for a real port: the live test server's, or anybody's."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode, urlsplit

from django.http import HttpResponse

from dwebsocket.testing.client import WebSocketClient, handshake_headers
from dwebsocket.testing.websocket import ClientWebSocket

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_MAX_REFUSAL_BYTES = 1024 * 1024


class LiveWebSocketClient(WebSocketClient):
    """
    Opens WebSockets at a server's port, with its own cookies; for the rest Django's test client.

    So ``force_login`` works where the server shares the test's database and settings, as
    ``LiveServerTestCase`` and pytest-django's ``live_server`` do. Views fail in the server: their
    exceptions are logged there, and not raised in the test.
    """

    def __init__(self, url: str, *args: Any, **kwargs: Any) -> None:
        """
        Begins without cookies.

        Args:
            url: The server's, such as ``live_server.url``; ``http`` only.
            *args: As for Django's client.
            **kwargs: As for Django's client.
        """
        super().__init__(*args, **kwargs)
        split = urlsplit(url)
        if split.scheme not in ("http", "ws") or not split.hostname:
            raise ValueError(f"{url!r} is no address of a test server: it begins with http://")
        self._address = (split.hostname, split.port or 80)
        self._netloc = split.netloc

    def websocket(
        self,
        path: str,
        data: Any = None,
        *,
        subprotocols: Sequence[str] = (),
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
        answer_pings: bool = True,
        **extra: Any,
    ) -> ClientWebSocket:
        """As :meth:`WebSocketClient.websocket`, over TCP. It sends the Origin of the site."""
        if extra:
            raise TypeError(f"a live server takes headers only, not {', '.join(extra)}")
        if data:
            path += ("&" if "?" in path else "?") + urlencode(data, doseq=True)

        def open_(websocket: ClientWebSocket) -> None:
            fields = handshake_headers(
                websocket,
                subprotocols,
                {
                    "host": self._netloc,
                    "origin": f"http://{self._netloc}",
                    "cookie": "; ".join(f"{m.key}={m.coded_value}" for m in self.cookies.values()),
                    **{name.lower(): value for name, value in (headers or {}).items()},
                },
            )
            lines = [f"GET {path} HTTP/1.1", *(f"{name}: {v}" for name, v in fields.items() if v)]
            sock = socket.create_connection(self._address, websocket._timeout)
            try:
                sock.sendall("\r\n".join([*lines, "", ""]).encode("latin-1"))
                head = _peek_head(sock)
                status = int(head.split(b" ", 2)[1])
                websocket._response = response = HttpResponse(status=status)
                for line in head.decode("latin-1").split("\r\n")[1:]:
                    name, _, value = line.partition(":")
                    response[name.strip()] = value.strip()
                if status != 101:
                    response.content = _read_refusal(sock, response, len(head) + 4)
                    sock.close()
                    return
            except BaseException:
                sock.close()
                raise
            websocket._attach(sock, None)
            websocket._run(websocket._opening())

        return ClientWebSocket(
            open_,
            timeout=self.websocket_timeout if timeout is None else timeout,
            raises=False,
            answer_pings=answer_pings,
        )


def _peek_head(sock: socket.socket) -> bytes:
    """Gives the head of the answer, and leaves it where it is: frames may stand behind it."""
    size = 0
    while True:
        # Waits for one more byte than last time, or more.
        data = sock.recv(size + 1, socket.MSG_PEEK | socket.MSG_WAITALL)
        data = sock.recv(64 * 1024, socket.MSG_PEEK)
        head, end, _ = data.partition(b"\r\n\r\n")
        if end:
            return head
        if len(data) <= size:
            raise ConnectionError(f"no HTTP answer, but {data[:60]!r}")
        size = len(data)


def _read_refusal(sock: socket.socket, response: HttpResponse, start: int) -> bytes:
    length = response.get("Content-Length", "")
    wanted = start + (int(length) if length.isdigit() else _MAX_REFUSAL_BYTES)
    data = b""
    while len(data) < wanted and (more := sock.recv(64 * 1024)):
        data += more
    return data[start:]
