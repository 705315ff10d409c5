"""An open connection to a server."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, NoReturn

from dwebsocket.api.arguments import (
    as_binary,
    as_bytes,
    as_json,
    as_text,
    check_close,
    check_timeout,
    parsed,
)
from dwebsocket.api.receiving import each_message
from dwebsocket.api.waiting import loop_hub, pings
from dwebsocket.api.waiting.long_calls import call_elsewhere
from dwebsocket.api.waiting.steps import arun, run
from dwebsocket.api.waiting.waiter import THREAD, Waiter
from dwebsocket.compat.asyncio import running_loop
from dwebsocket.compat.missing import MissingPart
from dwebsocket.exceptions import (
    ConnectionClosed,
    ReceiveTimeout,
    SendTimeout,
    UsageError,
)
from dwebsocket.runners import runner_of
from dwebsocket.telemetry import clock

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterator
    from http.client import HTTPMessage

    from dwebsocket import _core
    from dwebsocket.api.arguments import Binary, Sendable

    Message = str | bytes

_PING_TIMEOUT_S = 20.0
_NORMAL, _GOING_AWAY = 1000, 1001


def _waiter() -> Waiter:
    """Returns the waiter for threads of this process, which may be green."""
    for library, hubs in (("gevent", "gevent.hub"), ("eventlet", "eventlet.hubs")):
        if hubs in sys.modules:
            try:
                return runner_of(library).waiter
            except MissingPart:
                break
    return THREAD


class ClientConnection:
    """
    An open WebSocket to a server, by :func:`dwebsocket.connect` or :func:`dwebsocket.aconnect`.

    Any thread, green thread or task may call the methods, also several at once; those that wait
    have async twins. Messages of one sender keep their order. Text is ``str``, binary is
    ``bytes``. A connection that is forgotten while it is open is closed with 1001; in a forked
    child its parent's connections are closed.

    Attributes:
        url: The URL that it was opened with.
        subprotocol: The subprotocol that the server has chosen, or None.
        headers: The headers of the server's answer, as of ``http.client``.
        is_compressed: Whether both sides agreed on compression.
    """

    def __init__(
        self,
        url: str,
        connection: _core.Connection,
        *,
        subprotocol: str | None,
        headers: HTTPMessage,
        is_compressed: bool,
        send_timeout: float | None,
    ) -> None:
        """Is called by :func:`dwebsocket.connect`."""
        self.url = url
        self.subprotocol = subprotocol
        self.headers = headers
        self.is_compressed = is_compressed
        self._connection = connection
        self._next = connection.next(loop_hub.current_core)
        self._waiter = _waiter()
        self._send_timeout = float("inf") if send_timeout is None else send_timeout

    def __repr__(self) -> str:
        state = "open" if self.close_code is None else f"closed with {self.close_code}"
        return f"<{type(self).__name__} {self._connection.id} {state}>"

    def __del__(self) -> None:
        # An attribute is missing where the constructor has failed.
        if (connection := getattr(self, "_connection", None)) is not None:
            connection.close(_GOING_AWAY, "")

    def __reduce__(self) -> NoReturn:
        # Of `copy` and `pickle`. A copy would close the connection when it is forgotten.
        raise TypeError("a connection has no copies, and cannot be pickled: it is one socket")

    # -- receiving ------------------------------------------------------------------------------

    def receive(self, timeout: float | None = None) -> Message:
        """
        Returns the next message, waiting for it if need be.

        Messages that came before the close are given first; only then does this raise.

        Args:
            timeout: Seconds. None waits while the connection lives, 0 takes what is here.

        Raises:
            ReceiveTimeout: Nothing came in time. The connection stays usable.
            ConnectionClosed: Nothing is left and nothing more can come.
            UsageError: Called in an event loop: use ``await websocket.areceive()``.
        """
        check_timeout(timeout)
        if timeout != 0:
            self._refuse_in_loop("areceive()")
        message = self._waiter.take(self._connection, timeout, False)  # noqa: FBT003
        if message is None:
            self._raise_if_nothing_comes()
            raise ReceiveTimeout(f"no message came within {timeout} s")
        return message

    def receive_json(self, timeout: float | None = None, **kwargs: Any) -> Any:
        """
        Returns the next message, parsed as JSON.

        Args:
            timeout: As for :meth:`receive`.
            **kwargs: Passed on to :func:`json.loads`.

        Raises:
            InvalidMessage: The message is no JSON. It is consumed.
            ReceiveTimeout, ConnectionClosed, UsageError: As :meth:`receive`.
        """
        return parsed(self.receive(timeout), kwargs)

    def __iter__(self) -> Iterator[Message]:
        """Yields each message until the connection has ended, however it does."""
        return each_message(self.receive)

    async def areceive(self, timeout: float | None = None) -> Message:
        """
        Returns the next message, without blocking the event loop. Cancelling it loses no message.

        Raises:
            ReceiveTimeout, ConnectionClosed: As :meth:`receive`.
        """
        check_timeout(timeout)
        connection = self._connection
        if timeout is None:
            try:
                return await self._next
            except StopAsyncIteration:
                self._raise_if_nothing_comes()
                raise ConnectionClosed from None
        deadline = clock.now() + timeout
        while (message := await connection.next_now()) is None:
            self._raise_if_nothing_comes()
            left = deadline - clock.now()
            if left <= 0:
                raise ReceiveTimeout(f"no message came within {timeout} s")
            # Only the wake-up is awaited, so giving up here takes no message away.
            await loop_hub.current().wait(connection, connection.watch_inbox, left)
        return message

    async def areceive_json(self, timeout: float | None = None, **kwargs: Any) -> Any:
        """Returns and raises what :meth:`receive_json` does; waits as :meth:`areceive` does."""
        return parsed(await self.areceive(timeout), kwargs)

    def __aiter__(self) -> ClientConnection:
        """Returns each message in ``async for``, until the connection has ended."""
        return self

    def __anext__(self) -> Awaitable[Message]:
        """Returns what the next message is awaited by."""
        # Not a coroutine function: the caller itself awaits what this returns.
        return self._next

    def _raise_if_nothing_comes(self) -> None:
        if self._connection.waiting() == (0, True):
            self._raise_ended()

    # -- sending --------------------------------------------------------------------------------

    def send(self, message: Sendable) -> None:
        """
        Sends a message: ``str`` as text, ``bytes``, ``bytearray`` and ``memoryview`` as binary.

        Returns when it is written or queued, not when it is received.

        Raises:
            ConnectionClosed: The connection has ended.
            SendTimeout: The server reads too slowly: there was no room within ``send_timeout``.
                Nothing was queued; the connection stays usable.
            TypeError: ``message`` is none of these.
            UsageError: Called in an event loop while there is no room: use ``await asend(…)``.
        """
        if not isinstance(message, (str, bytes)):
            message = as_bytes(message)
        if not self._connection.post(message, False, self._connection):  # noqa: FBT003
            self._send(message, None if isinstance(message, str) else True)

    def send_text(self, message: Sendable) -> None:
        """
        Sends text: a ``str``, or UTF-8 in bytes.

        Raises:
            ValueError: The bytes are no UTF-8.
            ConnectionClosed, SendTimeout, TypeError, UsageError: As :meth:`send`.
        """
        self._send(*as_text(message))

    def send_bytes(self, message: Binary) -> None:
        """
        Sends bytes.

        Raises:
            ConnectionClosed, SendTimeout, TypeError, UsageError: As :meth:`send`; ``TypeError`` for
                ``str``, too.
        """
        self._send(*as_binary(message))

    def send_json(self, data: Any, **kwargs: Any) -> None:
        """
        Sends ``data`` as JSON in a text message; dates, decimals and UUIDs as Django writes them.

        Args:
            data: The value to send.
            **kwargs: Passed on to :func:`json.dumps`.

        Raises:
            TypeError: JSON cannot represent ``data``.
            ConnectionClosed, SendTimeout, UsageError: As :meth:`send`.
        """
        self._send(*as_json(data, kwargs))

    def _send(self, message: Message, binary: bool | None) -> None:  # noqa: FBT001
        connection = self._connection
        if running_loop() is not None:
            sent = connection.try_send(message, binary=binary)
            if sent is None:
                self._refuse_in_loop("asend(…)")
        else:
            try:
                sent = self._waiter.send(
                    connection, message, binary=binary, timeout=self._send_timeout
                )
            except SendTimeout:
                raise self._no_room() from None
        if not sent:
            self._raise_ended()

    async def asend(self, message: Sendable) -> None:
        """
        Sends a message, as :meth:`send`; waits for room without blocking the event loop.

        Raises:
            ConnectionClosed, SendTimeout, TypeError: As :meth:`send`.
        """
        if not isinstance(message, (str, bytes)):
            message = as_bytes(message)
        if not self._connection.post(message, False, self._connection):  # noqa: FBT003
            await self._asend(message, None if isinstance(message, str) else True)

    async def asend_text(self, message: Sendable) -> None:
        """Sends text as :meth:`send_text`, and raises the same; waits as :meth:`asend` does."""
        await self._asend(*as_text(message))

    async def asend_bytes(self, message: Binary) -> None:
        """Sends bytes as :meth:`send_bytes`, and raises the same; waits as :meth:`asend` does."""
        await self._asend(*as_binary(message))

    async def asend_json(self, data: Any, **kwargs: Any) -> None:
        """Sends ``data`` as :meth:`send_json`, and raises the same; waits as :meth:`asend` does."""
        await self._asend(*as_json(data, kwargs))

    async def _asend(self, message: Message, binary: bool | None) -> None:  # noqa: FBT001
        connection = self._connection

        def try_send() -> bool | None:
            return connection.try_send(message, binary=binary)

        is_slow = connection.is_slow_to_send(message)
        deadline = clock.now() + self._send_timeout
        while (sent := await call_elsewhere(try_send) if is_slow else try_send()) is None:
            left = deadline - clock.now()
            if left <= 0:
                raise self._no_room()
            timeout = None if left == float("inf") else left
            await loop_hub.current().wait(connection, connection.watch_outbox, timeout)
        if not sent:
            self._raise_ended()

    def _no_room(self) -> SendTimeout:
        return SendTimeout(
            f"the server made no room within {self._send_timeout} s; see the options send_buffer "
            "and send_timeout"
        )

    def _raise_ended(self) -> None:
        end = self._connection.end()
        # Without an end the socket is gone, though the engine has not yet read how.
        raise ConnectionClosed(*end) if end else ConnectionClosed

    # -- pings ----------------------------------------------------------------------------------

    def ping(self, timeout: float | None = _PING_TIMEOUT_S) -> float:
        """
        Sends a ping and waits for its pong.

        Args:
            timeout: Seconds. None waits while the connection lives.

        Returns:
            The seconds that it took.

        Raises:
            PingTimeout: No answer came in time. The connection stays usable.
            ConnectionClosed: The connection has ended.
            UsageError: Called in an event loop: use ``await websocket.aping()``.
        """
        check_timeout(timeout)
        self._refuse_in_loop("aping()")
        return run(pings.ping(self._connection, self._waiter, timeout, "server"))

    async def aping(self, timeout: float | None = _PING_TIMEOUT_S) -> float:
        """Sends a ping as :meth:`ping`, and raises the same, without blocking the event loop."""
        check_timeout(timeout)
        return await arun(pings.ping(self._connection, self._waiter, timeout, "server"))

    @property
    def latency(self) -> float | None:
        """The seconds between the last answered ping and its pong, None before the first."""
        return self._connection.latency

    @property
    def pings_received(self) -> int:
        """How many pings of the server have come. The engine answers them."""
        return self._connection.pings_received

    # -- the end --------------------------------------------------------------------------------

    def close(self, code: int = _NORMAL, reason: str = "") -> None:
        """
        Closes the connection, after all that was sent. Does not wait, and may be repeated.

        The engine sees to the rest: it awaits the server's answer for ``close_timeout``.

        Args:
            code: One of 1000 to 1003, 1007 to 1014, or 3000 to 4999.
            reason: Of 123 bytes at most.

        Raises:
            TypeError, ValueError: A code or a reason that cannot be sent.
        """
        check_close(code, reason)
        self._connection.close(code, reason)

    def __enter__(self) -> ClientConnection:  # noqa: PYI034
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    async def __aenter__(self) -> ClientConnection:  # noqa: PYI034
        return self

    async def __aexit__(self, *exception: object) -> None:
        self.close()

    @property
    def closed(self) -> bool:
        """Whether the connection has ended. Messages that came before may still wait."""
        return self._connection.end() is not None

    @property
    def close_code(self) -> int | None:
        """
        The close code, None while the connection is open.

        1005 stands for a close frame without a code, 1006 for a server that vanished.
        """
        end = self._connection.end()
        return None if end is None else end[0]

    @property
    def close_reason(self) -> str:
        """The reason beside the close code; empty while the connection is open."""
        end = self._connection.end()
        return "" if end is None else end[1]

    def wait_closed(self, timeout: float | None = None) -> bool:
        """
        Waits until the connection has ended, and takes no message meanwhile.

        Args:
            timeout: Seconds. None waits while the connection lives, 0 only looks.

        Returns:
            Whether it has ended.

        Raises:
            UsageError: Called in an event loop: use ``await websocket.await_closed()``.
        """
        check_timeout(timeout)
        if timeout == 0:
            return self.closed
        self._refuse_in_loop("await_closed()")
        return pings.wait_closed(self._connection, self._waiter, timeout)

    async def await_closed(self, timeout: float | None = None) -> bool:
        """Waits for the end, as :meth:`wait_closed`, without blocking the event loop."""
        check_timeout(timeout)
        return await pings.await_closed(self._connection, timeout)

    def _refuse_in_loop(self, twin: str) -> None:
        if running_loop() is not None:
            raise UsageError(f"this would block the event loop: use `await websocket.{twin}`")
