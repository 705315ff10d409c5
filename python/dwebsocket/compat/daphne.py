"""
Undocumented parts of daphne, of Twisted and of autobahn below it: a connection, and early bytes.

``send`` is a partial call of ``Server.handle_reply`` with the ``WebSocketProtocol``, which has
Twisted's ``transport``. Version 4.
"""

from __future__ import annotations

import sys
from contextlib import contextmanager
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from dwebsocket.compat.transports import CLOSED, ENCRYPTS, ServedConnection, keeping

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_CHANNEL, _HTTP_VERSION = "_dwebsocket_channel", "_dwebsocket_http_version"


class DaphneConnection(ServedConnection):
    """See :class:`~dwebsocket.compat.transports.ServedConnection`."""

    server = "daphne"

    def __init__(self, protocol: Any) -> None:
        super().__init__(protocol.transport)
        self._protocol = protocol
        # The scope has none, and the server's own handshake is always by 1.1.
        self.http_version = protocol.__dict__.get(_HTTP_VERSION)

    @classmethod
    def find(cls, send: Any) -> DaphneConnection | None:
        """Returns the connection behind an application's ``send``; None on other servers."""
        protocol = next(iter(getattr(send, "args", None) or ()), None)
        is_found = type(protocol).__module__ == "daphne.ws_protocol"
        # A transport with TLS has no methods of a descriptor's own.
        is_plain = hasattr(getattr(protocol, "transport", None), "stopReading")
        return cls(protocol) if is_found and is_plain else None

    @property
    def descriptor(self) -> int:
        return self.transport.fileno()  # type: ignore[no-any-return]

    def hold(self) -> str | None:
        """Makes the server read no more. A transport that encrypts has ``TLS``."""
        transport = self.transport
        if getattr(transport, "TLS", False):
            return ENCRYPTS
        if self._is_closing():
            return CLOSED
        transport.stopReading()
        return None

    @contextmanager
    def _telling(self, tell: Callable[[], object]) -> Iterator[None]:
        """Has ``tell`` called by a producer, which Twisted asks for more when it has sent all."""
        transport = self.transport
        # The channel of the requests before: it would read on.
        before, is_streaming = transport.producer, transport.streamingProducer
        transport.unregisterProducer()
        producer = SimpleNamespace(resumeProducing=bool, stopProducing=tell)
        # Asks at once, too.
        transport.registerProducer(producer, False)  # noqa: FBT003
        producer.resumeProducing = tell
        try:
            yield
        finally:
            transport.unregisterProducer()
            if before is not None and not self._is_closing():
                transport.registerProducer(before, is_streaming)

    def _is_answering(self) -> bool:
        return bool(self.transport.dataBuffer or self.transport._tempDataBuffer)

    def _is_closing(self) -> bool:
        return not self.transport.connected or self.transport.disconnecting

    def release(self) -> None:
        """Lets Twisted read again."""
        self.transport.startReading()

    def take_early(self) -> bytes:
        """Takes the bytes that autobahn has after the request, and those of the HTTP channel."""
        protocol = self._protocol
        early: bytes = protocol.data
        protocol.data = b""
        channel = protocol.__dict__.pop(_CHANNEL, None)
        if channel is not None:
            early = b"".join(channel._dataBuffer) + channel._buffer + early
        return early

    def forget(self) -> None:
        """Stops reading: daphne resumes it with the handshake."""
        self.transport.stopReading()

    def abort(self) -> None:
        self.transport.abortConnection()

    def respond(self, response: bytes) -> None:
        self.transport.write(response)
        self.transport.loseConnection()

    def _is_left(self) -> bool:
        return not self.transport.connected


def keep_early_bytes() -> None:
    """Makes daphne keep bytes that follow a handshake at once; it drops them."""
    request: Any = getattr(sys.modules.get("daphne.http_protocol"), "WebRequest", None)
    process = getattr(request, "process", None)
    if process is None or request in keeping:
        return
    keeping.add(request)

    def process_and_keep(self: Any) -> Any:
        channel = self.channel
        result = process(self)
        protocol = getattr(getattr(channel, "transport", None), "protocol", None)
        if type(protocol).__module__ == "daphne.ws_protocol":
            vars(protocol)[_CHANNEL] = channel
            vars(protocol)[_HTTP_VERSION] = self.clientproto.decode("latin-1").partition("/")[2]
        return result

    request.process = process_and_keep
