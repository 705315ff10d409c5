"""
The client's end of a connection without bytes: turns ASGI's events into messages, and back.

In place of :mod:`dwebsocket.testing.wire` where there is no engine that reads frames.
"""

from __future__ import annotations

import base64
import os
from collections import deque
from typing import TYPE_CHECKING, Any

from dwebsocket.compat.system import needs_engine
from dwebsocket.exceptions import UnsupportedServer

if TYPE_CHECKING:
    from dwebsocket.servers.asgi.events import Event

Message = str | bytes

_PING = 0x9
_NO_STATUS, _ABNORMAL = 1005, 1006


class EventWire:
    """
    The client's end of one connection, with the attributes of :class:`~.wire.Wire`.

    Attributes:
        offer: Empty: nothing is compressed.
        headers: The headers of the acceptance; None until it has come.
        messages: Those that have come.
        pongs: The payloads of the client's pings.
        close: Code and reason of the server's end, once it has ended.
        outgoing: Events that are to be sent.
        close_sent: The client's close was queued.
        sent: How many messages the client has sent.
    """

    offer = ""

    def __init__(self, *, answer_pings: bool = True, offer: str = "") -> None:
        """
        Begins without headers.

        Raises:
            UnsupportedServer: It is to leave pings unanswered, or to compress.
        """
        if not answer_pings or offer:
            what = "compression=…" if offer else "answer_pings=False"
            raise UnsupportedServer(needs_engine(f"{what} of the test kit"))
        self.key = base64.b64encode(os.urandom(16)).decode()
        self.headers: dict[str, str] | None = None
        self.messages: deque[Message] = deque()
        self.pongs: list[bytes] = []
        self.close: tuple[int, str] | None = None
        self.outgoing: list[Event] = []
        self.close_sent = False
        self.sent = 0

    @property
    def is_over(self) -> bool:
        """Whether nothing more can come."""
        return self.close is not None

    @property
    def pings(self) -> int:
        """
        Fails: the server, which would send pings, is a fake.

        Raises:
            UnsupportedServer: Always.
        """
        raise UnsupportedServer(needs_engine("pings_received of the test kit"))

    def feed(self, event: Event | bytes) -> None:
        """Takes an event of the server; empty bytes are the end of the connection."""
        if isinstance(event, bytes):
            self.close = self.close or (_ABNORMAL, "")
        elif event["type"] == "websocket.accept":
            headers = [(name.decode(), value.decode("latin-1")) for name, value in event["headers"]]
            self.headers = dict(headers)
            if event["subprotocol"]:
                self.headers["sec-websocket-protocol"] = event["subprotocol"]
        elif event["type"] == "websocket.send":
            text = event.get("text")
            self.messages.append(event["bytes"] if text is None else text)
        else:
            self.close = (event["code"], event["reason"])

    def send(self, message: Message) -> None:
        """Queues a message: ``str`` as text, ``bytes`` as binary."""
        event: dict[str, Any] = {"type": "websocket.receive"}
        if isinstance(message, str):
            event["text"] = message
        elif isinstance(message, (bytes, bytearray, memoryview)):
            event["bytes"] = bytes(message)
        else:
            raise TypeError(f"a message must be str or bytes, not {type(message).__name__}")
        self.outgoing.append(event)
        self.sent += 1

    def send_frame(self, opcode: int, payload: bytes, *, is_final: bool = True) -> None:
        """
        Has a ping answered, as every server does. There are no other frames.

        Raises:
            UnsupportedServer: It is no ping.
        """
        if opcode != _PING:
            raise UnsupportedServer(needs_engine("send_frame() of the test kit"))
        self.pongs.append(payload)

    def send_close(self, code: int | None, reason: str) -> None:
        """Queues the client's close; a second one is not sent."""
        if not self.close_sent:
            self.close_sent = True
            code = _NO_STATUS if code is None else code
            self.outgoing.append({"type": "websocket.disconnect", "code": code, "reason": reason})
