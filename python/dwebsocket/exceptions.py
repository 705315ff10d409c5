"""Everything that dwebsocket raises, under one root: :class:`WebSocketError`."""

from __future__ import annotations

from django.core.exceptions import ImproperlyConfigured


class WebSocketError(Exception):
    """The root of all errors of this package."""


class UsageError(WebSocketError, RuntimeError):
    """The code that called did something that can never work."""


class ConnectionClosed(WebSocketError, EOFError):
    """
    The connection has ended: nothing more comes, nothing more goes.

    It is an ``EOFError``, too, which the original raised.

    Attributes:
        code: The close code of RFC 6455 section 7.4; 1005 when the close frame had none, 1006
            when there was no close frame at all.
        reason: The reason beside the code, often empty.
        by: Who began: ``"peer"``, ``"local"``, or ``"lost"`` without a close frame.
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
    The client sent something that it should not have sent, such as what is no JSON.

    A view may raise it, too, and let it through: the connection is closed with 1007 and the text as
    its reason, and the log has one record at level info.
    """


class SendTimeout(WebSocketError, TimeoutError):
    """The client took nothing for too long. Nothing was queued; the connection stays usable."""


class PingTimeout(WebSocketError, TimeoutError):
    """The client answered no ping in time. The connection stays usable."""


class ShuttingDown(WebSocketError):
    """The process is ending and takes no new connection."""


class UnsupportedServer(WebSocketError, ImproperlyConfigured):
    """This server does not let go of its clients' connections."""


class InternalError(WebSocketError):
    """Something in dwebsocket itself went wrong."""
