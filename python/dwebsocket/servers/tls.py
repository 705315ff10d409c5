"""
Connections that the server itself encrypts.

Exchanging the descriptor is no use here: the TLS object reads and writes it by its number. So the
descriptor stays, and the server's socket *object* is exchanged instead. It gets a class whose
methods are those of a dead end; its TLS object goes to the :mod:`pump`, and the engine gets one end
of a socket pair, on which it speaks as on any other connection.
"""

from __future__ import annotations

import contextlib
import functools
from typing import TYPE_CHECKING, Any

from dwebsocket import _core
from dwebsocket.compat.socket import has_tls, replace_inner, take_tls
from dwebsocket.compat.socket import system as _socket
from dwebsocket.servers import tls_pump

if TYPE_CHECKING:
    from collections.abc import Callable

    from dwebsocket.servers.contract import Client

_DEAD_END = "_dwebsocket_dead_end"
# All that a server may do to a socket, but for asking its addresses.
_OF_THE_DEAD_END = {
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


def _new_dead_end() -> tuple[_socket.socket, _socket.socket]:
    """
    Gives a socket that leads nowhere, for the server, and the other end of it, for us.

    Raises:
        OSError: The process has no descriptors left.
    """
    # Not `socket.socketpair`, whose ends may be green.
    theirs, ours = _socket.socketpair()
    # The server reads the end of the stream at once: some wait for it before they close.
    ours.shutdown(_socket.SHUT_WR)
    ours.settimeout(0)
    return theirs, ours


def ends_here(sock: object) -> bool:
    """Whether the server encrypts what goes through ``sock``, by the standard library's ``ssl``."""
    return has_tls(sock)


class TlsTakeover:
    """
    One encrypted client's way from the server to the engine.

    As :class:`dwebsocket.servers.takeover.Takeover`.
    """

    def __init__(
        self,
        client: Client,
        dead_end: tuple[_socket.socket, _socket.socket],
        pair: tuple[_socket.socket, _socket.socket],
        carrier: tls_pump.Pump,
    ) -> None:
        self._client = client
        self._dead_end, self._sink = dead_end
        self._engines_end, self._near = pair
        self._pump = carrier

    @classmethod
    def prepare(cls, client: Client) -> TlsTakeover:
        """As :meth:`Takeover.prepare`."""
        try:
            carrier = tls_pump.current()
        except RuntimeError as error:
            raise OSError(f"no thread to carry encrypted connections: {error}") from error
        # Not those of the `socket` module, which gevent and eventlet replace.
        engines_end, near = _socket.socketpair()
        near.settimeout(0)
        return cls(client, _new_dead_end(), (engines_end, near), carrier)

    def exchange(self) -> tuple[int, bytes]:
        """As :meth:`Takeover.exchange`."""
        client = self._client
        sock: Any = client.tls
        self._dead_end.settimeout(sock.gettimeout())
        client.forget()
        tls = take_tls(sock)
        far = _to_dead_end(sock, self._dead_end)
        _socket.socket.settimeout(far, 0)
        with contextlib.suppress(OSError):
            # A Unix socket has no such option, and needs none.
            _socket.socket.setsockopt(far, _socket.IPPROTO_TCP, _socket.TCP_NODELAY, 1)
        early = client.read_early()
        client.let_go()
        self._pump.add(tls_pump.Pipe(tls, far, self._near))
        return self._engines_end.detach(), early

    def discard(self) -> None:
        """As :meth:`Takeover.discard`."""
        _core.discard(self._sink.fileno())

    def finish(self) -> None:
        """As :meth:`Takeover.finish`."""
        # Unread bytes would reset the server's end and look like a client that broke off.
        with contextlib.suppress(OSError):
            while self._sink.recv(4096):
                pass
        self._sink.close()
        # Left over when there was no exchange.
        self._engines_end.close()

    def __del__(self) -> None:
        self.finish()


def _to_dead_end(sock: Any, dead_end: _socket.socket) -> _socket.socket:
    """Makes ``sock`` pass its calls to ``dead_end``; gives the socket that the TLS object uses."""
    setattr(sock, _DEAD_END, dead_end)
    sock.__class__ = _face(sock.__class__)
    # The sockets of gevent have one of their own inside, which some servers close directly.
    real: _socket.socket = replace_inner(sock, dead_end) or sock
    return real


@functools.cache
def _face(base: type) -> type:
    """Gives a class that a socket of class ``base`` can be turned into."""
    methods: dict[str, Any] = {name: _delegate(method) for name, method in _OF_THE_DEAD_END.items()}
    methods |= {"read": _read, "unwrap": lambda self: getattr(self, _DEAD_END)}
    return type(f"{base.__name__}TakenOver", (base,), methods)


def _delegate(name: str) -> Callable[..., Any]:
    def call(self: object, *args: Any, **kwargs: Any) -> Any:
        return getattr(getattr(self, _DEAD_END), name)(*args, **kwargs)

    return call


def _read(self: object, length: int = 1024, buffer: Any = None) -> bytes | int:
    dead_end: _socket.socket = getattr(self, _DEAD_END)
    return dead_end.recv(length) if buffer is None else dead_end.recv_into(buffer, length)
