"""
`request.websocket.protocol`: the original's lower layer, on top of a WebSocket.

In the original the protocol used the socket, and the WebSocket used the protocol. Here the engine
implements the protocol, and the calls of this class are passed to the WebSocket.
"""

from __future__ import annotations

import base64
import hashlib
import struct
import weakref
from typing import TYPE_CHECKING, Any, NoReturn

from dwebsocket.exceptions import ConnectionClosed, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

# RFC 6455 section 1.3.
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_NO_STATUS, _ABNORMAL = 1005, 1006


class WebSocketProtocol13:
    """
    The frames of one WebSocket, by the names of the original.

    It has only a weak reference to its WebSocket. When that is gone the connection counts as
    closed, and calls that need it raise ``ConnectionClosed``. Before there is one, all calls on the
    connection raise ``UsageError``. Any thread may call any method.
    """

    LENGTH_7 = 0x7D
    LENGTH_16 = 1 << 16
    LENGTH_63 = 1 << 63
    OPCODE_TEXT = 0x1
    OPCODE_BINARY = 0x2
    OPCODE_CLOSE = 0x8
    OPCODE_PING = 0x9
    OPCODE_PONG = 0xA
    STATUS_NORMAL = 1000
    STATUS_GOING_AWAY = 1001
    STATUS_PROTOCOL_ERROR = 1002
    STATUS_UNSUPPORTED_DATA_TYPE = 1003
    STATUS_STATUS_NOT_AVAILABLE = 1005
    STATUS_ABNORMAL_CLOSED = 1006
    STATUS_INVALID_PAYLOAD = 1007
    STATUS_POLICY_VIOLATION = 1008
    STATUS_MESSAGE_TOO_BIG = 1009
    STATUS_INVALID_EXTENSION = 1010
    STATUS_UNEXPECTED_CONDITION = 1011
    STATUS_TLS_HANDSHAKE_ERROR = 1015

    def __init__(
        self,
        sock: Any,
        headers: Mapping[str, Any],
        mask_outgoing: bool = False,  # noqa: FBT002
    ) -> None:
        """
        Begins without a WebSocket; ``DefaultWebSocket(protocol)`` gives it one.

        Args:
            sock: The result of a factory's ``get_wsgi_sock()``. As soon as there is a WebSocket,
                :attr:`sock` is another object.
            headers: The request's ``META``.
            mask_outgoing: Kept, and without effect: servers do not mask (RFC 6455 section 5.1).
        """
        self.sock: Any = sock
        self.headers = headers
        self.mask_outgoing = mask_outgoing
        self._find_websocket: Callable[[], Any] = _no_websocket
        self._is_end_read = False

    def _belong_to(self, websocket: Any) -> None:
        # A strong reference back would be a cycle, which only the garbage collector frees.
        self._find_websocket = weakref.ref(websocket)
        self.sock = SelectableSocket(self._find_websocket)

    @property
    def _websocket(self) -> Any:
        websocket = self._find_websocket()
        if websocket is None:
            raise ConnectionClosed
        return websocket

    # -- helpers of the original ------------------------------------------------------------------

    @classmethod
    def mask_or_unmask(cls, mask: bytes, data: bytes) -> bytes:
        """
        Masks ``data``, or takes the mask away (RFC 6455 section 5.3).

        Args:
            mask: Four bytes.
            data: Any number of bytes.
        """
        length = len(data)
        key = bytes(mask) * (length // 4 + 1)
        masked = int.from_bytes(data, "big") ^ int.from_bytes(key[:length], "big")
        return masked.to_bytes(length, "big")

    @classmethod
    def select_subprotocol(cls, subprotocols: Sequence[str]) -> str | None:
        """
        Returns the subprotocol to agree on, one of those that the client offers.

        Made to be overridden. None leaves it to ``WEBSOCKET_SUBPROTOCOLS``.
        """
        return None

    @classmethod
    def compute_accept_value(cls, key: bytes) -> bytes:
        """Returns the ``Sec-WebSocket-Accept`` for a ``Sec-WebSocket-Key``."""
        return base64.b64encode(hashlib.sha1(key + _GUID, usedforsecurity=False).digest())

    def accept_connection(self) -> None:
        """
        Opens the connection now: :meth:`dwebsocket.WebSocket.accept_connection`.

        Raises:
            PermissionDenied, BadRequest, UsageError: As that call.
        """
        self._websocket.accept_connection()

    # -- receiving --------------------------------------------------------------------------------

    def read(self) -> tuple[int, bytes | None]:
        """
        Returns the next message, waiting for it if need be.

        Returns:
            ``OPCODE_TEXT`` or ``OPCODE_BINARY`` with the bytes of the message; at the end of the
            connection ``OPCODE_CLOSE`` with None, once.

        Raises:
            ConnectionClosed: The end has been given before. It is an ``EOFError``.
        """
        return self.read_data()

    def read_data(self) -> tuple[int, bytes | None]:
        """
        Does the work of :meth:`read`, which calls this. A subclass may override it.

        Raises:
            ConnectionClosed: As :meth:`read`.
        """
        _, opcode, data = self.read_frame()
        return (opcode, None) if opcode == self.OPCODE_CLOSE else (opcode, data)

    def read_frame(self) -> tuple[int, int, bytes]:
        """
        Returns the next message as one whole frame: 1, the opcode and the bytes.

        At the end of the connection, once, ``OPCODE_CLOSE`` with the code and the reason of the
        close frame as bytes, empty without a close frame or without a code.

        Raises:
            ConnectionClosed: As :meth:`read`.
        """
        try:
            message = self._websocket.receive()
        except ConnectionClosed:
            if self._is_end_read:
                raise
            self._is_end_read = True
            return 1, self.OPCODE_CLOSE, close_payload(self.close_code, self.close_reason)
        if isinstance(message, str):
            return 1, self.OPCODE_TEXT, message.encode()
        return 1, self.OPCODE_BINARY, message

    def can_read(self, timeout: float | None = 0.0) -> bool:
        """
        Whether :meth:`read` would return at once: a message waits, or the unread end.

        Args:
            timeout: Seconds to wait for that; None waits while the connection lives.

        Raises:
            ConnectionClosed: As :meth:`dwebsocket.WebSocket.has_messages`.
            UsageError: It would wait in an event loop.
        """
        return bool(self._websocket._can_receive(timeout))

    # -- sending ----------------------------------------------------------------------------------

    def write(self, message: Any, binary: bool = False) -> bool:  # noqa: FBT002
        """
        Sends ``message``: with ``binary`` as binary, else as :meth:`dwebsocket.WebSocket.send`.

        False when the WebSocket is gone.

        Raises:
            ConnectionClosed, SendTimeout, TypeError: As :meth:`dwebsocket.WebSocket.send`.
        """
        websocket = self._find_websocket()
        if websocket is None:
            return False
        sent: bool = websocket.send_bytes(_as_bytes(message)) if binary else websocket.send(message)
        return sent

    def write_ping(self, payload: str | bytes = "") -> None:
        """Sends a ping with up to 125 bytes."""
        self._websocket._ping(_as_bytes(payload))

    def write_pong(self, data: str | bytes) -> None:
        """Sends a pong with up to 125 bytes. Pings of the client are answered without it."""
        self._websocket._pong(_as_bytes(data))

    def write_close(self, code: int | None = None, reason: str | bytes | None = None) -> None:
        """
        Closes, as :meth:`close`: no frame may follow a close frame.

        Raises:
            TypeError, ValueError: As :meth:`close`.
        """
        self.close(code, reason)

    # -- the end ----------------------------------------------------------------------------------

    def close(self, code: int | None = None, reason: str | bytes | None = None) -> None:
        """
        Closes as :meth:`dwebsocket.WebSocket.close`; does nothing when the WebSocket is gone.

        Raises:
            TypeError, ValueError: As that call.
        """
        if (websocket := self._find_websocket()) is not None:
            websocket.close(code, reason)

    def is_closed(self) -> bool:
        """Whether a loop around this call is over; True when the WebSocket is gone."""
        websocket = self._find_websocket()
        return websocket is None or websocket.is_closed()

    @property
    def closed(self) -> bool:
        """Whether the connection has ended; True when the WebSocket is gone."""
        websocket = self._find_websocket()
        return websocket is None or websocket.closed

    # When either side begins to close, both count as terminated.
    server_terminated = client_terminated = closed

    @property
    def close_code(self) -> int | None:
        """The close code; None before the end, and when the WebSocket is gone."""
        websocket = self._find_websocket()
        return None if websocket is None else websocket.close_code

    @property
    def close_reason(self) -> str:
        """The close reason; empty before the end, and when the WebSocket is gone."""
        websocket = self._find_websocket()
        return "" if websocket is None else websocket.close_reason


class SelectableSocket:
    """
    ``protocol.sock`` of a WebSocket, to pass to ``select`` with other sockets.

    It is readable while a message or the unread end of the connection waits. Only the engine reads
    and writes the connection's bytes, so there are no methods to receive or send them.
    """

    def __init__(self, find_websocket: Callable[[], Any]) -> None:
        self._find_websocket = find_websocket

    def fileno(self) -> int:
        """
        Returns :meth:`dwebsocket.WebSocket.fileno`; -1 when the WebSocket is gone.

        Raises:
            OSError, UsageError: As that call.
        """
        websocket = self._find_websocket()
        return -1 if websocket is None else websocket.fileno()

    def close(self) -> None:
        """Closes the WebSocket."""
        if (websocket := self._find_websocket()) is not None:
            websocket.close()


def close_payload(code: int | None, reason: str) -> bytes:
    """Returns what stands in a close frame: nothing without a frame or without a code."""
    if code in (None, _NO_STATUS, _ABNORMAL):
        return b""
    return struct.pack("!H", code) + reason.encode()


def _no_websocket() -> NoReturn:
    raise UsageError("this protocol has no WebSocket: DefaultWebSocket(protocol) gives it one")


def _as_bytes(message: Any) -> Any:
    """Encodes text; returns anything else as it is: the WebSocket checks its type."""
    return message.encode() if isinstance(message, str) else message


protocols: dict[str, type[WebSocketProtocol13]] = {"13": WebSocketProtocol13}

#: Returns the class for a version as factories name it, None for one that is not supported.
get_websocket_protocol = protocols.get
