"""A client for a real port: the live test server's, or any other server's."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode, urlsplit

from django.http import HttpResponse

from dwebsocket.testing.client import WebSocketClient

if TYPE_CHECKING:
    from dwebsocket.testing.client import Request
    from dwebsocket.testing.websocket import ClientWebSocket

_END = b"\r\n\r\n"
# The most that is read of a refusal's body that does not announce its length.
_MAX_UNANNOUNCED_BYTES = 1024 * 1024


class LiveWebSocketClient(WebSocketClient):
    """
    Opens WebSockets at a server's port, with this client's cookies.

    Everything else is done by Django's test client.

    ``force_login`` works where the server shares the test's database and settings, as
    ``LiveServerTestCase`` and pytest-django's ``live_server`` do. Views run in the server: their
    exceptions are logged there, and not raised in the test.

    ``websocket`` goes over TCP, sends the Origin of the site, and takes no ``extra``.
    """

    def __init__(self, url: str, *args: Any, **kwargs: Any) -> None:
        """
        Begins without cookies.

        Args:
            url: The server's, such as ``live_server.url``; without TLS.
            *args: As for Django's client.
            **kwargs: As for Django's client.
        """
        super().__init__(*args, **kwargs)
        split = urlsplit(url)
        if split.scheme not in ("http", "ws") or not split.hostname:
            raise ValueError(f"{url!r} is no address of a test server: it begins with http://")
        self._address = (split.hostname, split.port or 80)
        self._netloc = split.netloc

    def _check(self, request: Request) -> None:
        if request.extra:
            raise TypeError(f"a live server takes headers only, not {', '.join(request.extra)}")

    # A coroutine for the base class, which runs it to its end at once: it never waits in a loop.
    async def _open(self, request: Request, websocket: ClientWebSocket) -> None:
        sock = socket.create_connection(self._address, websocket.timeout)
        try:
            sock.sendall(self._head_of(request, websocket))
            head, rest = _read_head(sock)
            websocket._response = response = _response_of(head)
            if websocket.refused:
                response.content = _read_rest(sock, response, rest)
                sock.close()
                return
        except BaseException:
            sock.close()
            raise
        websocket._wire.feed(head + _END + rest)
        await websocket._open(sock, None)

    def _head_of(self, request: Request, websocket: ClientWebSocket) -> bytes:
        path = request.path
        if request.data:
            path += ("&" if "?" in path else "?") + urlencode(request.data, doseq=True)
        defaults = {
            "host": self._netloc,
            "origin": f"http://{self._netloc}",
            "cookie": "; ".join(f"{m.key}={m.coded_value}" for m in self.cookies.values()),
        }
        fields = request.fields(websocket._wire.key, websocket._wire.offer, defaults)
        # An empty value leaves the header out.
        lines = [f"GET {path} HTTP/1.1", *(f"{name}: {v}" for name, v in fields.items() if v)]
        return "\r\n".join([*lines, "", ""]).encode("latin-1")


def _read_head(sock: socket.socket) -> tuple[bytes, bytes]:
    data = b""
    while _END not in data:
        more = sock.recv(64 * 1024)
        if not more:
            raise ConnectionError(f"no HTTP answer, but {data[:60]!r}")
        data += more
    head, _, rest = data.partition(_END)
    return head, rest


def _response_of(head: bytes) -> HttpResponse:
    first, *lines = head.decode("latin-1").split("\r\n")
    response = HttpResponse(status=int(first.split(" ")[1]))
    for line in lines:
        name, _, value = line.partition(":")
        response[name.strip()] = value.strip()
    return response


def _read_rest(sock: socket.socket, response: HttpResponse, body: bytes) -> bytes:
    length = response.get("Content-Length", "")
    wanted = int(length) if length.isdigit() else _MAX_UNANNOUNCED_BYTES
    while len(body) < wanted and (more := sock.recv(64 * 1024)):
        body += more
    return body
