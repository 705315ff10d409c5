"""
A connection of an ASGI server, which the engine takes over: what asyncio's servers have in common.

Each server's own module says where its transport is, and what else it keeps for a connection.
"""

from __future__ import annotations

import asyncio
import select
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: Reasons why a server keeps a connection.
ENCRYPTS = "it encrypts by itself, which a proxy in front of it could do"
CLOSED = "the client has gone"

#: The classes of servers whose methods keep early bytes.
keeping: set[type] = set()

# Seconds for the server to see that its connection is over.
_TIMEOUT_S = 1.0


class ServedConnection:
    """
    A connection from its request for a WebSocket on. Belongs to the server's loop.

    Uses undocumented parts of the server. Where one is missing, its ``find`` returns None, and the
    server keeps the connection.
    """

    #: The server's name, for messages.
    server: str
    #: The version of the request, where the server's scope may have another one.
    http_version: str | None = None
    #: The extensions that the client offers, where the server's scope may lack them.
    extensions = ""
    #: The server's configuration; None where it tells nothing about its end.
    config: Any = None

    def __init__(self, transport: Any) -> None:
        self.transport = transport

    @property
    def descriptor(self) -> int:
        """The socket's."""
        return self.transport.get_extra_info("socket").fileno()  # type: ignore[no-any-return]

    def hold(self) -> str | None:
        """Makes the server read no more. Returns the reason, and does nothing, where it cannot."""
        transport = self.transport
        if transport.get_extra_info("sslcontext") is not None:
            return ENCRYPTS
        if self._is_closing() or transport.get_extra_info("socket") is None:
            return CLOSED
        transport.pause_reading()
        return None

    async def has_answered(self, timeout: float) -> bool:
        """
        Waits until all responses before are sent, ``timeout`` seconds at most.

        Returns False where the client does not read them, or has gone.
        """
        if not self._is_answering():
            return True
        told = asyncio.get_running_loop().create_future()

        def tell() -> None:
            if not told.done():
                told.set_result(None)

        with self._telling(tell):
            await asyncio.wait([told], timeout=timeout)
        return not self._is_closing() and not self._is_answering()

    @contextmanager
    def _telling(self, tell: Callable[[], object]) -> Iterator[None]:
        """Has ``tell`` called when the transport has sent all, and when the client has gone."""
        transport = self.transport
        protocol = transport.get_protocol()
        resume, lose = protocol.resume_writing, protocol.connection_lost
        is_server_paused = True

        def pause_writing() -> None:
            # By the limit of this method, which does not concern the server.
            nonlocal is_server_paused
            is_server_paused = False

        def resume_writing() -> None:
            tell()
            if is_server_paused:
                resume()

        def connection_lost(error: Exception | None) -> None:
            tell()
            lose(error)

        low, high = transport.get_write_buffer_limits()
        replaced = (pause_writing, resume_writing, connection_lost)
        own = vars(protocol)
        own.update({function.__name__: function for function in replaced})
        try:
            transport.set_write_buffer_limits(high=0)
            yield
        finally:
            for function in replaced:
                del own[function.__name__]
            if not transport.is_closing():
                transport.set_write_buffer_limits(high=high, low=low)

    def _is_answering(self) -> bool:
        return bool(self.transport.get_write_buffer_size())

    def _is_closing(self) -> bool:
        return bool(self.transport.is_closing())

    def release(self) -> None:
        """Lets the server read again: it keeps the connection."""
        self.transport.resume_reading()

    def take_early(self) -> bytes:
        """Returns the bytes after the request that the server has read."""
        return b""

    def forget(self) -> None:
        """Stops reading, where the server may have begun again."""

    def abort(self) -> None:
        """Closes the server's side, which is a placeholder by now."""
        self.transport.abort()

    def respond(self, response: bytes) -> None:
        """Sends a whole HTTP response in place of the server, and closes the connection."""
        self.transport.write(response)
        self.transport.close()

    async def left(self) -> None:
        """Waits until the server has seen that its connection is over, so that it sends nothing."""
        loop = asyncio.get_running_loop()
        end = loop.time() + _TIMEOUT_S
        # Servers tell nobody when they have dropped a connection.
        while not self._is_left() and loop.time() < end:  # noqa: ASYNC110
            await asyncio.sleep(0)

    def _is_left(self) -> bool:
        raise NotImplementedError


def epoll_of_uvloop() -> int | None:
    """
    Returns the descriptor of the running loop's epoll, if the loop is uvloop's.

    libuv removes a descriptor that it reads from no more only with its next event, and by its
    number. As the number then refers to another socket, that would fail for ever, at full speed.
    ``_get_backend_id`` is uvloop's, since 0.12. Loops of asyncio have removed it in
    ``pause_reading``, and kqueue drops a descriptor by itself when its number gets another socket.
    """
    backend = getattr(asyncio.get_running_loop(), "_get_backend_id", None)
    return None if backend is None or not hasattr(select, "epoll") else backend()
