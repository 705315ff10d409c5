"""
A handshake on an ASGI server whose connection the engine takes over, as under WSGI.

The server is recognised by its ``send``. It stops reading when its application is called, and its
socket is exchanged when the site accepts, so it sees its connection end. With TLS in the server,
HTTP/2, or a server that is not known, there is no such handshake: see
:class:`dwebsocket.servers.asgi.handshake.CarriedHandshake`.
"""

from __future__ import annotations

import sys
from functools import partial
from http.client import responses as _PHRASES
from typing import TYPE_CHECKING, Any

from dwebsocket import _core
from dwebsocket.compat import daphne, gunicorn_asgi, hypercorn, transports, uvicorn
from dwebsocket.compat.system import NO_TAKEOVER
from dwebsocket.servers import hosts
from dwebsocket.servers.asgi import hosting
from dwebsocket.servers.asgi.handshake import AsgiHandshake
from dwebsocket.servers.contract import Client

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from dwebsocket.compat.transports import ServedConnection
    from dwebsocket.servers.contract import Send
    from dwebsocket.servers.handshake import Opening

# Seconds for a client to read the responses before, where handshakes have no limit.
_PATIENCE_S = 30.0

_SERVERS = (uvicorn, hypercorn, gunicorn_asgi, daphne)
_NAMES = ("uvicorn", "hypercorn", "gunicorn", "daphne")
_FINDERS = (
    uvicorn.UvicornConnection.find,
    hypercorn.HypercornConnection.find,
    gunicorn_asgi.GunicornConnection.find,
    daphne.DaphneConnection.find,
)


def keep_early_bytes() -> None:
    """Makes the servers that this process has loaded keep the bytes that follow a handshake."""
    for server in () if NO_TAKEOVER else _SERVERS:
        server.keep_early_bytes()


def find(scope: Mapping[str, Any], send: Send) -> NativeHandshake | str:
    """Returns the handshake of a websocket scope, or the reason why the server keeps it."""
    if NO_TAKEOVER:
        return "nothing is taken over from servers on this system"
    version = scope.get("http_version")
    # As servers have it: a client may write any number into a request of HTTP/1.
    if version in ("2", "3"):
        return f"over HTTP/{version} the connection has streams of other requests"
    for find_in in _FINDERS:
        served = find_in(send)
        if served is not None:
            reason = served.hold()
            return NativeHandshake(scope, served) if reason is None else reason
    if (module := _stranger(send)) is not None:
        return (
            f"the application gets the `send` of {module} in place of the server's (leave that "
            "middleware or tool out for WebSockets)"
        )
    return "it does not give its clients' connections to applications"


def _stranger(send: Any) -> str | None:
    """
    Returns the module of a ``send`` that something around the application has put in its place.

    The connection is not looked for behind it: it may be there to see or change each event.
    """
    while isinstance(send, partial):
        send = send.func
    call = send if hasattr(send, "__globals__") else type(send).__call__
    # Not `__module__`, which `functools.wraps` copies.
    module: str = getattr(call, "__globals__", {}).get("__name__", "")
    is_stranger = module and module.partition(".")[0] not in _NAMES
    # The `send` of an unknown server may be any function.
    return module if is_stranger and not sys.modules.keys().isdisjoint(_NAMES) else None


class NativeHandshake(AsgiHandshake):
    """A handshake whose connection the engine takes over."""

    def __init__(
        self, scope: Mapping[str, Any], served: ServedConnection, method: str = "GET"
    ) -> None:
        """Begins with a websocket scope, and a connection that the server reads no more."""
        super().__init__(scope, method, served.http_version)
        if offers := served.extensions:
            self._environ.setdefault("HTTP_SEC_WEBSOCKET_EXTENSIONS", offers)
        self._served = served
        # Of the server's.
        self._is_over = False
        self.client = Client(
            server=served.server,
            descriptor=served.descriptor,
            read_early=served.take_early,
            let_go=served.abort,
            forget=self._forget,
            shutdown_plan=partial(hosting.shutdown_plan, served.server, served.config),
        )

    def _forget(self) -> None:
        """Makes the loop watch the descriptor no more, which will refer to another socket."""
        self._served.forget()
        if (epoll := transports.epoll_of_uvloop()) is not None:
            _core.unwatch_descriptor(epoll, self._served.descriptor)

    def note_server(self) -> None:
        """Notes its server, which has no lifespan, as that of this process."""
        if not hosts.is_noted():
            hosting.note(self._served.server, self._served.config, None, {})

    def find(self) -> None:
        """Does nothing: it is found."""

    async def has_turn(self, timeout: float | None) -> bool:
        """Aborts the connection where its client does not read the responses before."""
        if await self._served.has_answered(timeout or _PATIENCE_S):
            return True
        self._served.abort()
        self._is_over = True
        return False

    def open(self, opening: Opening) -> _core.Connection:
        """Opens the connection. To be called in the server's loop."""
        self.connection = super().open(opening)
        self._is_over = True
        return self.connection

    def refuse(self) -> None:
        """Returns the connection to the server, which writes a refusal."""
        self._served.release()

    def respond(self, status: int, headers: Iterable[tuple[bytes, bytes]], body: bytes) -> None:
        """Refuses by an HTTP response, where the server has no event for one."""
        lines = [f"HTTP/1.1 {status} {_PHRASES.get(status, '')}".encode()]
        lines += [name + b": " + value for name, value in headers]
        self._served.respond(b"\r\n".join([*lines, b"Connection: close", b"", body]))
        self._is_over = True

    async def serve(self) -> None:
        """Waits until the server has seen the end of its connection. Then the application ends."""
        if self._is_over:
            await self._served.left()
