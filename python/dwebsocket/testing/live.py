"""A client for a real port: the live test server's, or any other server's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from django.http import HttpResponse
from django.utils.encoding import iri_to_uri
from django.utils.http import urlencode

from dwebsocket.client.dialing import exchange
from dwebsocket.client.options import dialer_for
from dwebsocket.testing.client import WebSocketClient

if TYPE_CHECKING:
    from dwebsocket.testing.client import Request
    from dwebsocket.testing.websocket import ClientWebSocket


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
            *args, **kwargs: As for Django's client.
        """
        super().__init__(*args, **kwargs)
        split = urlsplit(url)
        if split.scheme not in ("http", "ws") or not split.hostname:
            raise ValueError(f"{url!r} is no address of a test server: it begins with http://")
        self._url = f"ws://{split.netloc}/"
        self._netloc = split.netloc

    def _check(self, request: Request) -> None:
        if request.extra:
            raise TypeError(f"a live server takes headers only, not {', '.join(request.extra)}")

    # A coroutine for the base class, which runs it to its end at once: it never waits in a loop.
    async def _open(self, request: Request, websocket: ClientWebSocket) -> None:
        # The native client opens it. Its frames are those of the test, which may break rules.
        dialer = dialer_for(self._url, {"open_timeout": websocket.timeout, "proxy": None})
        (status, reason, headers), rest, sock = exchange(dialer, self._request(request, websocket))
        response = HttpResponse(b"" if sock else rest, status=status, reason=reason)
        for name, value in headers:
            response[name] = value
        websocket._response = response
        if sock is None:
            return
        try:
            websocket._wire.begin(headers)
            if rest:
                websocket._wire.feed(rest)
        except BaseException:
            sock.close()
            raise
        await websocket._open(sock, None)

    def _request(self, request: Request, websocket: ClientWebSocket) -> bytes:
        # As Django's client: the data replaces a query of the path.
        path = iri_to_uri(request.path)
        if request.data:
            path = f"{path.partition('?')[0]}?{urlencode(request.data, doseq=True)}"
        defaults = {
            "host": self._netloc,
            "origin": f"http://{self._netloc}",
            "cookie": "; ".join(f"{m.key}={m.coded_value}" for m in self.cookies.values()),
        }
        fields = request.fields(websocket._wire.key, websocket._wire.offer, defaults)
        # An empty value leaves the header out.
        lines = [f"GET {path} HTTP/1.1", *(f"{name}: {v}" for name, v in fields.items() if v)]
        return "\r\n".join([*lines, "", ""]).encode("latin-1")
