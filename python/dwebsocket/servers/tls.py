"""
Connections that the server itself encrypts.

The descriptor cannot be exchanged here: the TLS object reads and writes it by its number. So the
descriptor stays, and the server's socket *object* is exchanged instead. It gets a class whose
methods use a placeholder; its TLS object goes to the :mod:`tls_pump`, and the engine gets one end
of a socket pair, which it uses like any other connection.
"""

from __future__ import annotations

import contextlib
import functools
from typing import TYPE_CHECKING, Any

from dwebsocket import _core
from dwebsocket.compat.socket import replace_inner, take_tls
from dwebsocket.compat.socket import system as _socket
from dwebsocket.servers import tls_pump

if TYPE_CHECKING:
    from collections.abc import Callable

    from dwebsocket.servers.contract import Client

_PLACEHOLDER = "_dwebsocket_placeholder"
# All methods that a server may call on a socket, except those that give its addresses.
_DELEGATED = {
    name: name
    for name in (
        "recv",
        "recv_into",
        "recvfrom",
        "recvfrom_into",
        "recvmsg",
        "recvmsg_into",
        "send",
        "sendall",
        "sendmsg",
        "sendto",
        "shutdown",
        "detach",
        "fileno",
        "getblocking",
        "getsockopt",
        "gettimeout",
        "setblocking",
        "setsockopt",
        "settimeout",
    )
} | {"_real_close": "close", "write": "send"}


class TlsTakeover:
    """
    The takeover of one encrypted client's connection by the engine.

    Its methods are those of :class:`dwebsocket.servers.takeover.Takeover`.
    """

    def __init__(self, client: Client) -> None:
        """Allocates the socket pairs, and starts the pump if it does not run."""
        self._client = client
        try:
            self._pump = tls_pump.current()
        except RuntimeError as error:
            raise OSError(f"no thread to carry encrypted connections: {error}") from error
        # Not those of the `socket` module, which gevent and eventlet replace.
        self._engines_end, self._near = _socket.socketpair()
        self._near.settimeout(0)
        self._placeholder, self._sink = _socket.socketpair()
        # So the server reads the end of the stream at once: some wait for it before they close.
        self._sink.shutdown(_socket.SHUT_WR)
        self._sink.settimeout(0)

    def exchange(self) -> tuple[int, bytes]:
        """Puts the placeholder in the place of the server's socket, and starts the pipe."""
        client = self._client
        sock: Any = client.tls
        self._placeholder.settimeout(sock.gettimeout())
        client.forget()
        tls = take_tls(sock)
        far = _to_placeholder(sock, self._placeholder)
        _socket.socket.settimeout(far, 0)
        with contextlib.suppress(OSError):
            # A Unix socket has no such option, and needs none.
            _socket.socket.setsockopt(far, _socket.IPPROTO_TCP, _socket.TCP_NODELAY, 1)
        early = client.read_early()
        client.let_go()
        self._pump.add(tls_pump.Pipe(tls, far, self._near))
        return self._engines_end.detach(), early

    def discard(self) -> None:
        """Drops all that the server writes to its side from now on."""
        _core.discard(self._sink.fileno())

    def finish(self) -> None:
        """Closes this side of the placeholder, and the engine's end if there was no exchange."""
        # Read all bytes first: unread ones would reset the server's end, as if a client broke off.
        with contextlib.suppress(OSError):
            while self._sink.recv(4096):
                pass
        self._sink.close()
        # Left over when there was no exchange.
        self._engines_end.close()

    def __del__(self) -> None:
        # It is missing where the constructor has failed.
        if hasattr(self, "_sink"):
            self.finish()


def _to_placeholder(sock: Any, placeholder: _socket.socket) -> _socket.socket:
    """Makes ``sock`` pass its calls to ``placeholder``; returns the TLS object's socket."""
    setattr(sock, _PLACEHOLDER, placeholder)
    sock.__class__ = _face(sock.__class__)
    # gevent's sockets contain a socket of the system, which some servers close directly.
    real: _socket.socket = replace_inner(sock, placeholder) or sock
    return real


@functools.cache
def _face(base: type) -> type:
    """Returns the subclass of ``base`` whose methods use the placeholder."""
    methods: dict[str, Any] = {name: _delegate(method) for name, method in _DELEGATED.items()}
    methods |= {"read": _read, "unwrap": lambda self: getattr(self, _PLACEHOLDER)}
    return type(f"{base.__name__}TakenOver", (base,), methods)


def _delegate(name: str) -> Callable[..., Any]:
    def call(self: object, *args: Any, **kwargs: Any) -> Any:
        return getattr(getattr(self, _PLACEHOLDER), name)(*args, **kwargs)

    return call


def _read(self: object, length: int = 1024, buffer: Any = None) -> bytes | int:
    placeholder: _socket.socket = getattr(self, _PLACEHOLDER)
    return placeholder.recv(length) if buffer is None else placeholder.recv_into(buffer, length)
