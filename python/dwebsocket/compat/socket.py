"""Private parts of the standard library's ``socket`` and ``ssl``, also in patched processes."""

from __future__ import annotations

# The sockets below `socket.socket`, a class that gevent and eventlet replace by their own. Every
# CPython has this module; without it there is an ImportError.
import _socket as system
import ssl
from typing import Any

from dwebsocket.compat.missing import MissingPart

__all__ = ["accept", "below_reader", "has_tls", "replace_inner", "system", "take_tls"]


def accept(listener: system.socket) -> system.socket:
    """
    Waits for a connection, on this thread of the system. It has no limit of time.

    ``_socket.socket._accept``, in every version of Python so far.

    Raises:
        MissingPart: It is missing. The method of ``socket.socket`` gives a green socket.
        OSError: No more connections come.
    """
    if (take := getattr(listener, "_accept", None)) is None:
        raise MissingPart("Python", "_socket.socket._accept")
    accepted = system.socket(fileno=take()[0])
    accepted.settimeout(None)
    return accepted


def below_reader(reader: object) -> Any:
    """
    Returns the socket below the buffered reader that ``socket.makefile`` has made.

    ``reader.raw._sock`` (``socket.SocketIO``), in every version of Python so far. Where it is
    missing: None, and the server's family refuses, as it cannot get the client's socket.
    """
    return getattr(getattr(reader, "raw", None), "_sock", None)


def has_tls(sock: object) -> bool:
    """
    Whether ``sock`` encrypts by the standard library's ``ssl``.

    ``SSLSocket._sslobj``, since Python 2.6, and the same in gevent's and eventlet's sockets; it is
    None before TLS begins and when it has ended.

    Raises:
        MissingPart: It is missing. The engine would write plain text into an encrypted connection.
    """
    tls = getattr(sock, "_sslobj", sock)
    if tls is not sock:
        return tls is not None
    if isinstance(getattr(sock, "context", None), ssl.SSLContext):
        raise MissingPart("Python", f"{type(sock).__name__}._sslobj")
    return False


def take_tls(sock: Any) -> Any:
    """
    Removes the TLS state of ``sock``, for which :func:`has_tls` is true, and returns it.

    ``SSLSocket._sslobj``: its methods ``read``, ``write`` and ``shutdown`` use the descriptor of
    the socket directly, without the socket's own methods.
    """
    tls, sock._sslobj = sock._sslobj, None
    return tls


def replace_inner(sock: Any, new: system.socket) -> Any:
    """
    Replaces the socket inside of ``sock`` by ``new``, and returns the old one, or None.

    gevent's sockets have one of the system as ``_sock``, since 1.0, which some servers close
    directly. Other sockets have none: then nothing changes.
    """
    inner = getattr(sock, "_sock", None)
    if inner is not None:
        sock._sock = new
    return inner
