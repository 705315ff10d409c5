"""All exceptions of dwebsocket, under one base class: :class:`WebSocketError`."""

from __future__ import annotations

from http.client import HTTPMessage

from django.core.exceptions import ImproperlyConfigured


class WebSocketError(Exception):
    """The base class of all errors of this package."""


class UsageError(WebSocketError, RuntimeError):
    """The calling code did something that can never work."""


class ConnectionClosed(WebSocketError, EOFError):
    """
    The connection has ended: no message can be received or sent any more.

    It is also an ``EOFError``, which the original raised.

    Attributes:
        code: The close code of RFC 6455 section 7.4; 1005 when the close frame had none, 1006
            when there was no close frame at all.
        reason: The reason beside the code, often empty.
        by: The side that began: ``"peer"``, ``"local"``, or ``"lost"`` without a close frame.
    """

    def __init__(self, code: int = 1006, reason: str = "", by: str = "lost") -> None:
        super().__init__(code, reason, by)
        self.code = code
        self.reason = reason
        self.by = by

    def __str__(self) -> str:
        reason = f": {self.reason}" if self.reason else ""
        return f"the connection was closed with {self.code}{reason}"


class ReceiveTimeout(WebSocketError, TimeoutError):
    """No message came in time. The connection stays usable."""


class InvalidMessage(WebSocketError, ValueError):
    """
    The client sent an invalid message, such as one that is no JSON.

    A view may raise it, too. When a view lets it through, the connection is closed with 1007 and
    the text as its reason, and the log has one record at level info.
    """


class SendTimeout(WebSocketError, TimeoutError):
    """The client read too slowly: there was no room in time. Nothing was queued; it stays open."""


class PingTimeout(WebSocketError, TimeoutError):
    """The client answered no ping in time. The connection stays usable."""


class GroupUnavailable(WebSocketError, ConnectionError):
    """
    The backend of a group cannot take a message now. The text names the backend, where, and why.

    No member in this process got the message. One that timed out may have reached other processes.
    """


class ConnectionFailed(WebSocketError, ConnectionError):
    """
    A server cannot be reached, or does not open a WebSocket: see :func:`dwebsocket.connect`.

    The text says what failed, and why.

    Attributes:
        step: What failed, for programs: ``"network"`` (the name, the connection), ``"proxy"``,
            ``"tls"``, ``"certificate"`` (the server's is not trusted), ``"http"`` (the answer is no
            HTTP) or ``"handshake"`` (a refusal, or a 101 that breaks a rule). None for a timeout.
    """

    step: str | None = None


class ConnectionTimeout(ConnectionFailed, TimeoutError):
    """A server did not open a WebSocket within ``open_timeout``."""


class HandshakeRefused(ConnectionFailed):
    """
    A server has answered the handshake with another response than 101.

    Attributes:
        status: The status of the response, such as 403.
        reason: The text beside it, often empty.
        headers: Its headers, as of ``http.client``: names in any case, ``get_all`` for all values.
        body: The start of its body, 64 KiB at most.
    """

    step = "handshake"

    def __init__(
        self, status: int, reason: str = "", headers: HTTPMessage | None = None, body: bytes = b""
    ) -> None:
        super().__init__(status, reason, headers, body)
        self.status = status
        self.reason = reason
        self.headers = HTTPMessage() if headers is None else headers
        self.body = body

    def __str__(self) -> str:
        return f"the server refused the WebSocket with {self.status} {self.reason}".rstrip()


class ShuttingDown(WebSocketError):
    """The process is ending and takes no new connection."""


class UnsupportedServer(WebSocketError, ImproperlyConfigured):
    """This server does not give its clients' connections away, or does not support the call."""


class InternalError(WebSocketError):
    """Something in dwebsocket itself went wrong."""
