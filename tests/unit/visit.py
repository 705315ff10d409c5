"""A handshake through all of Django, served as gunicorn serves it, without gunicorn."""

from __future__ import annotations

import asyncio
import base64
import io
import os
import socket
from collections.abc import Callable
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from django.core.handlers.base import BaseHandler
from django.core.handlers.wsgi import WSGIHandler, WSGIRequest
from django.test import RequestFactory
from peer import Client

if TYPE_CHECKING:
    from django.http import HttpRequest, HttpResponse

Environ = dict[str, Any]

KEY = base64.b64encode(b"sixteen bytes ok").decode()

# The bytes that the server writes to its end, which is the placeholder by then.
SERVERS_WORDS = b"HTTP/1.1 101 Switching Protocols\r\nServer: gunicorn\r\n\r\n"


def handshake(path: str = "/", **changes: str | None) -> Environ:
    """
    Make the environ of a handshake without a server.

    Keywords replace its keys; None takes one away.
    """
    environ = RequestFactory().get(path).environ
    environ.update(
        {
            "HTTP_HOST": "testserver",
            "HTTP_UPGRADE": "websocket",
            "HTTP_CONNECTION": "Upgrade",
            "HTTP_SEC_WEBSOCKET_KEY": KEY,
            "HTTP_SEC_WEBSOCKET_VERSION": "13",
        }
    )
    environ.update(changes)
    return {name: value for name, value in environ.items() if value is not None}


def body(early: bytes = b"", read_ahead: bytes = b"") -> Any:
    """Make gunicorn's `wsgi.input`, with bytes that the client sent early."""
    unreader = SimpleNamespace(buf=io.BytesIO(read_ahead))
    return SimpleNamespace(
        read=lambda *size: b"",
        readline=lambda *size: b"",
        buf=io.BytesIO(early),
        reader=SimpleNamespace(unreader=unreader),
    )


class Visit:
    """One request: the client's end, the server's end, and Django's response between them."""

    def __init__(self, environ: Environ, early: bytes = b"", read_ahead: bytes = b"") -> None:
        theirs, self.server = socket.socketpair()
        self.client = Client(theirs)
        self.environ = environ
        environ.update({"gunicorn.socket": self.server, "wsgi.input": body(early, read_ahead)})
        self.response: Any = None
        self.head = b""

    def request(self) -> HttpRequest:
        """Make the request alone, for views that are called without a handler."""
        return WSGIRequest(self.environ)

    def answer(self) -> HttpResponse:
        """Run Django's sync handler, up to the response."""

        def start_response(status: str, headers: list[tuple[str, str]]) -> Any:
            return None

        self.response = WSGIHandler()(self.environ, start_response)
        return self.response

    def answer_async(self) -> HttpResponse:
        """Run Django's async handler, up to the response."""
        handler = BaseHandler()
        handler.load_middleware(is_async=True)
        # Not one made for ASGI: only the chain of middleware matters here.
        request = self.request()

        async def main() -> HttpResponse:
            return await handler.get_response_async(request)

        self.response = asyncio.run(main())
        return self.response

    def serve(self) -> Visit:
        """Do what the server does with the response, and read the head that the client gets."""
        assert b"".join(self.response) == b""
        self.finish()
        self.head = self._read_head()
        return self

    def finish(self) -> None:
        """Write the response to what is left of the connection and forget it, as the server."""
        self.server.sendall(SERVERS_WORDS)
        self.response.close()
        self.server.close()

    def header(self, name: str) -> list[str]:
        """Give the values of a header of the 101 that the client got."""
        lines = [line.partition(": ") for line in self.head.decode("latin-1").split("\r\n")]
        return [value for key, _, value in lines if key.lower() == name.lower()]

    def close(self) -> None:
        """Leave nothing behind."""
        self.client.vanish()
        self.server.close()
        if self.response is not None:
            self.response.close()

    def _read_head(self) -> bytes:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            byte = self.client.sock.recv(1)
            assert byte, head
            head += byte
        return head


def descriptors() -> set[str]:
    """
    Give this process's open descriptors, without the one that lists them.

    Compare them by `<=`: what an earlier test has left may be closed in between.
    """
    return {
        name for name in os.listdir("/proc/self/fd") if os.path.lexists(f"/proc/self/fd/{name}")
    }


Serve = Callable[..., Visit]
