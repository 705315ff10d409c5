"""A client for a real port: the live test server's, or any other server's."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode, urlsplit

from django.http import HttpResponse

from dwebsocket.testing.client import WebSocketClient, handshake_headers
from dwebsocket.testing.deflate import offer_of
from dwebsocket.testing.websocket import ClientWebSocket

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_END = b"\r\n\r\n"
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
        compression: bool | str = False,
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
            sock = socket.create_connection(self._address, websocket.timeout)
            try:
                sock.sendall("\r\n".join([*lines, "", ""]).encode("latin-1"))
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
            websocket._attach(sock, None)
            websocket._run(websocket._opening())

        return ClientWebSocket(
            open_,
            timeout=self.websocket_timeout if timeout is None else timeout,
            raises=False,
            answer_pings=answer_pings,
            offer=offer_of(compression),
        )


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
    wanted = int(length) if length.isdigit() else _MAX_REFUSAL_BYTES
    while len(body) < wanted and (more := sock.recv(64 * 1024)):
        body += more
    return body
