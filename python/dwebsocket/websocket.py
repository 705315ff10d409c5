"""`request.websocket`: the connection as its view uses it. Its calls are in `dwebsocket.api`."""

from __future__ import annotations

import selectors
import weakref
from datetime import datetime, timezone
from typing import TYPE_CHECKING
from weakref import WeakSet

from dwebsocket.api.arguments import as_timeout, check_timeout
from dwebsocket.api.base import made_once, own_websocket
from dwebsocket.api.beside import Beside
from dwebsocket.api.ending import Ending
from dwebsocket.api.opening import Opening
from dwebsocket.api.protocol import WebSocketProtocol13
from dwebsocket.api.receiving import Messages, Receiving, refuse_in_loop
from dwebsocket.api.sending import Sending
from dwebsocket.api.waiting import pings
from dwebsocket.api.waiting.steps import arun, run
from dwebsocket.compat.asyncio import running_loop
from dwebsocket.exceptions import UnsupportedServer, UsageError
from dwebsocket.groups.joining import Joining

if TYPE_CHECKING:
    from dwebsocket._core import Connection
    from dwebsocket.request import Transport

__all__ = ["Messages", "WebSocket", "own_websocket"]

# The default timeout of `ping` and `aping`. It does not follow `WEBSOCKET_PING_TIMEOUT`.
_PING_TIMEOUT_S = 20.0


class WebSocket(Receiving, Sending, Opening, Ending, Beside, Joining):
    """
    One WebSocket connection, as ``request.websocket``.

    Any thread may call the methods, also several at once; those that wait have async twins for
    event loops. Messages of one sender keep their order. ``wait``, ``read``, ``send`` and iteration
    behave as in the original dwebsocket: text is ``bytes`` unless ``WEBSOCKET_TEXT_TYPE`` says
    ``"str"``, and a closed connection shows in return values. ``receive…`` and
    ``send_text/bytes/json`` are exact, and raise.
    """

    def __init__(self, protocol: WebSocketProtocol13 | None = None) -> None:
        """
        Makes an unopened one; to be called in a factory's ``create_websocket()``.

        Args:
            protocol: One that such a factory has made, as in the original.
        """
        super().__init__()
        if protocol is not None:
            self.protocol = protocol

    @property
    def remote_address(self) -> str | None:
        """
        The client's address as Django sees it (``REMOTE_ADDR``), which may be a proxy's.

        None where the server gives none, as over Unix sockets.
        """
        return self._headers.get("REMOTE_ADDR") or None

    @property
    def opened_at(self) -> datetime | None:
        """When the connection was opened, an aware datetime in UTC; None before."""
        opened_at = self._opened_at
        return None if opened_at is None else datetime.fromtimestamp(opened_at, tz=timezone.utc)

    @property
    def latency(self) -> float | None:
        """
        The seconds between the last answered ping and its pong, None before the first.

        Pings are those of :meth:`ping` and of ``WEBSOCKET_PING_INTERVAL``. Always None where
        an ASGI server keeps the connection: it passes no pongs on to applications.
        """
        return None if self._connection is None else self._connection.latency

    def ping(self, timeout: float | None = _PING_TIMEOUT_S) -> float:
        """
        Queues a ping after the messages that wait to be sent, and waits for the client's pong.

        Any thread may call it, also several at once. Browsers answer by themselves. While messages
        that are not taken fill ``WEBSOCKET_RECEIVE_BUFFER``, no pong is read.

        Args:
            timeout: Seconds. None waits while the connection lives.

        Returns:
            The seconds that it took.

        Raises:
            PingTimeout: No answer came in time. It is a ``TimeoutError``; the connection stays
                usable.
            ConnectionClosed: The connection has ended.
            UnsupportedServer: An ASGI server keeps the connection: it sends the pings. Or the
                client uses the fallback, which has none.
            UsageError: Called in an event loop (use ``await websocket.aping()``), or the connection
                is not open yet.
        """
        check_timeout(timeout)
        if running_loop() is not None:
            raise UsageError(
                "this would block the event loop and all its views: use `await websocket.aping()`"
            )
        return run(pings.ping(self._pinged(), self._waiter, timeout))

    async def aping(self, timeout: float | None = _PING_TIMEOUT_S) -> float:
        """
        Pings the client, as :meth:`ping`, without blocking the event loop.

        Cancelling it ends the wait for the answer.

        Raises:
            PingTimeout, ConnectionClosed, UnsupportedServer: As :meth:`ping`.
            UsageError: The connection is not open yet.
        """
        check_timeout(timeout)
        return await arun(pings.ping(self._pinged(), self._waiter, timeout))

    def _can_receive(self, timeout: float | None) -> bool:
        """Whether a message waits, or the unread end, within ``timeout`` seconds."""
        timeout = as_timeout(timeout)
        if self.has_messages():
            return True
        if timeout == 0:
            return False
        refuse_in_loop()
        # Looked up at each call: gevent and eventlet replace the class.
        with selectors.DefaultSelector() as selector:
            selector.register(self, selectors.EVENT_READ)
            return bool(selector.select(timeout))

    def _pinged(self) -> Connection:
        if self._transport != "websocket":
            raise UnsupportedServer(
                f"the client has no WebSocket but {self._transport!r}, and answers no pings"
            )
        return self._connection or self._engine

    @property
    def transport(self) -> Transport:
        """
        The way that messages take: ``"websocket"``, ``"sse"`` or ``"polling"``.

        Server-sent events, polling and POST only in views with ``fallback=True``, for clients
        whose WebSockets do not open.
        """
        return self._transport

    @property
    def subprotocol(self) -> str | None:
        """The subprotocol that both sides agreed on."""
        return self._subprotocol

    @property
    def protocol(self) -> WebSocketProtocol13:
        """The original's lower layer, which sends and receives bytes. One object a WebSocket."""
        return made_once(self, "_protocol", self._new_protocol)

    @protocol.setter
    def protocol(self, protocol: WebSocketProtocol13) -> None:
        request = getattr(protocol.sock, "request", None)
        if request is not None:
            self._request = weakref.ref(request)
        self._protocol = protocol
        protocol._belong_to(self)

    def _new_protocol(self) -> WebSocketProtocol13:
        protocol = WebSocketProtocol13(None, self._headers)
        protocol._belong_to(self)
        return protocol

    def fileno(self) -> int:
        """
        Returns a descriptor that is readable while a message or the unread end waits.

        For ``select``, ``poll``, ``loop.add_reader`` and the hubs of green threads. It is made on
        first use and closed when the view has ended; then this returns -1. Read messages with
        :meth:`read`, never from the descriptor.

        Raises:
            OSError: The process has no descriptor left.
            UsageError: The connection is not open yet.
        """
        connection = self._engine
        if self._is_finished or (descriptor := connection.descriptor()) is None:
            return -1
        # The end keeps the descriptor readable until each of these threads has received it.
        if self._selecting is None:
            self._selecting = WeakSet()
        if not self._is_told_here:
            self._selecting.add(self._waiter.thread())
        return descriptor

    def _ping(self, payload: bytes) -> bool:
        """Sends a ping, for the protocol of the original. False when it cannot be queued."""
        return self._engine.ping(payload)

    def _pong(self, payload: bytes) -> bool:
        """Sends an unsolicited pong. False when it cannot be queued."""
        return self._engine.pong(payload)
