"""
Connections to other servers, as their client: :func:`connect` and :func:`aconnect`.

``address.py`` reads URLs and finds the proxy for one, ``options.py`` reads the arguments, calls the
functions among them and makes the engine's dialer, ``dialing.py`` waits for it.
``connection.py`` is what is open then, and ``reconnecting.py`` opens one after the other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, overload

from dwebsocket.client.connection import ClientConnection
from dwebsocket.client.dialing import Opening, open_now
from dwebsocket.client.options import ConnectOptions, Given, Target, check_flag
from dwebsocket.client.reconnecting import AsyncReconnecting, Reconnecting

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = [
    "AsyncReconnecting",
    "ClientConnection",
    "ConnectOptions",
    "Opening",
    "Reconnecting",
    "aconnect",
    "connect",
]


@overload
def connect(
    url: Given[str], *, reconnect: Literal[False] = False, **options: Unpack[ConnectOptions]
) -> ClientConnection: ...
@overload
def connect(
    url: Given[str], *, reconnect: Literal[True], **options: Unpack[ConnectOptions]
) -> Reconnecting: ...
@overload
def connect(
    url: Given[str], *, reconnect: bool, **options: Unpack[ConnectOptions]
) -> ClientConnection | Reconnecting: ...
def connect(
    url: Given[str], *, reconnect: bool = False, **options: Unpack[ConnectOptions]
) -> ClientConnection | Reconnecting:
    """
    Opens a WebSocket to a server, and waits until it is open.

    No settings of Django are needed. Other threads, and other green threads, run meanwhile.

    Example::

        with connect("wss://example.com/ws/") as websocket:
            websocket.send("hello")
            answer = websocket.receive(timeout=5)

    Args:
        url: ``ws://host/path`` or ``wss://host/path``. A user and password in it are sent as
            ``Authorization: Basic``. Or a function that returns it for each attempt.
        reconnect: Return an iterable of connections in place of one: the next one is opened when
            the last one has ended. See :class:`dwebsocket.client.reconnecting.Reconnecting`.
        **options: See :class:`dwebsocket.client.options.ConnectOptions`.

    Returns:
        The open connection: a context manager, and an iterable of the messages.

    Raises:
        HandshakeRefused: The server has answered with another status than 101.
        ConnectionTimeout: It took longer than ``open_timeout``.
        ConnectionFailed: The server or the proxy cannot be reached, or the answer is invalid.
        ShuttingDown: This process is ending.
        UsageError: Called in an event loop: use ``await aconnect(…)``.
        ValueError, TypeError: An argument is invalid, or what a function has given; or it is async.
        Exception: Any that a function raises.
    """
    target = Target(url, options)
    check_flag("reconnect", reconnect)
    return Reconnecting(target) if reconnect else open_now(target)


@overload
def aconnect(
    url: Given[str], *, reconnect: Literal[False] = False, **options: Unpack[ConnectOptions]
) -> Opening: ...
@overload
def aconnect(
    url: Given[str], *, reconnect: Literal[True], **options: Unpack[ConnectOptions]
) -> AsyncReconnecting: ...
@overload
def aconnect(
    url: Given[str], *, reconnect: bool, **options: Unpack[ConnectOptions]
) -> Opening | AsyncReconnecting: ...
def aconnect(
    url: Given[str], *, reconnect: bool = False, **options: Unpack[ConnectOptions]
) -> Opening | AsyncReconnecting:
    """
    Opens a WebSocket to a server, for async code.

    ``await aconnect(url)`` returns the connection, ``async with aconnect(url) as websocket`` closes
    it, too, ``async for message in aconnect(url)`` yields its messages. Cancelling stops it.

    Args:
        url: As for :func:`connect`. Functions may be async; others must not block.
        reconnect: Return connections, one after the other, in ``async for``.
        **options: As for :func:`connect`.

    Raises:
        ValueError, TypeError: An argument is invalid. All else is raised when it is awaited.
    """
    target = Target(url, options)
    check_flag("reconnect", reconnect)
    return AsyncReconnecting(target) if reconnect else Opening(target)
