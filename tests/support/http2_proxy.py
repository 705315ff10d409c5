"""
Speaks HTTP/2 to a server at a Unix socket for clients that speak HTTP/1.1 (RFC 8441):

    http2_proxy.py PORT SOCKET COMMAND…

Starts the command, and ends when it does. Each client has a connection of its own to the server.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import signal
import sys
from http.client import responses
from typing import TYPE_CHECKING

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import (
    DataReceived,
    RemoteSettingsChanged,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    WindowUpdated,
)

if TYPE_CHECKING:
    from h2.events import Event

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
# Those of one connection, and what HTTP/2 says in another way.
HOP_BY_HOP = {"connection", "upgrade", "host", "sec-websocket-key", "transfer-encoding"}
CHUNK = 64 * 1024


class Frames:
    """Looks for the close frame of one side."""

    def __init__(self) -> None:
        self.rest = bytearray()
        self.skip = 0
        self.has_close = False

    def feed(self, data: bytes) -> None:
        """Take bytes as they come."""
        self.rest += data
        while True:
            passed = min(self.skip, len(self.rest))
            del self.rest[:passed]
            self.skip -= passed
            if self.skip or len(self.rest) < 2:
                return
            self.has_close = self.has_close or self.rest[0] & 0x0F == 8
            size = self.rest[1] & 0x7F
            length = {126: 2, 127: 8}.get(size, 0)
            if len(self.rest) < 2 + length:
                return
            if length:
                size = int.from_bytes(self.rest[2 : 2 + length], "big")
            self.skip = 2 + length + 4 * (self.rest[1] >> 7) + size


class Exchange:
    """One client and its stream."""

    def __init__(self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        self.client = client
        self.to_client = to_client
        self.h2 = H2Connection(H2Configuration(client_side=True, header_encoding="latin-1"))
        self.news = asyncio.Condition()
        self.is_ready = False
        self.key = ""
        self.is_over = False
        self.said, self.heard = Frames(), Frames()

    async def run(self, socket: str) -> None:
        """Serve the client to its end."""
        head = (await self.client.readuntil(b"\r\n\r\n")).decode("latin-1")
        self.server, self.to_server = await asyncio.open_unix_connection(socket)
        self.h2.initiate_connection()
        await self.flush()
        reading = asyncio.create_task(self.read())
        try:
            async with self.news:
                await self.news.wait_for(lambda: self.is_ready or self.is_over)
            self.h2.send_headers(1, self.fields_of(head), end_stream=not self.key)
            await self.flush()
            if self.key:
                await self.carry()
            await reading
        finally:
            reading.cancel()
            self.to_server.close()

    def fields_of(self, head: str) -> list[tuple[str, str]]:
        """Give the request as HTTP/2 has it."""
        request, *lines = head.split("\r\n")
        method, path, _ = request.split(" ", 2)
        fields = [line.partition(":") for line in lines if line]
        headers = [(name.lower(), value.strip()) for name, _, value in fields]
        found = dict(headers)
        if found.get("upgrade", "").lower() == "websocket":
            self.key = found.get("sec-websocket-key", "")
        pseudo = [
            (":method", "CONNECT" if self.key else method),
            (":scheme", "http"),
            (":path", path),
            (":authority", found.get("host", "")),
        ]
        if self.key:
            pseudo.append((":protocol", "websocket"))
        return [*pseudo, *(pair for pair in headers if pair[0] not in HOP_BY_HOP)]

    async def carry(self) -> None:
        """Pass on what the client sends."""
        with contextlib.suppress(OSError):
            while chunk := await self.client.read(CHUNK):
                self.said.feed(chunk)
                while chunk and not self.is_over:
                    async with self.news:
                        await self.news.wait_for(lambda: self.window() > 0 or self.is_over)
                    if not self.is_over:
                        most = min(self.window(), self.h2.max_outbound_frame_size)
                        self.h2.send_data(1, chunk[:most])
                        chunk = chunk[most:]
                        await self.flush()
                self.end_if_closed()
                if self.is_over:
                    self.to_server.close()
                    return
        if not self.is_over:
            self.h2.end_stream(1)
            await self.flush()

    def window(self) -> int:
        """How much the server takes now."""
        return 0 if self.is_over else self.h2.local_flow_control_window(1)

    async def read(self) -> None:
        """Pass on what the server sends."""
        with contextlib.suppress(OSError):
            while not self.is_over and (data := await self.server.read(CHUNK)):
                for event in self.h2.receive_data(data):
                    await self.on_event(event)
                await self.flush()
                async with self.news:
                    self.news.notify_all()
        async with self.news:
            self.is_over = True
            self.news.notify_all()
        # A client that has not read its last bytes yet still gets them.
        with contextlib.suppress(OSError):
            self.to_client.write_eof()

    async def on_event(self, event: Event) -> None:
        """Act on one event of the stream."""
        if isinstance(event, RemoteSettingsChanged):
            self.is_ready = True
        elif isinstance(event, ResponseReceived):
            self.to_client.write(self.head_of(dict(event.headers), list(event.headers)))
        elif isinstance(event, DataReceived):
            self.to_client.write(event.data)
            await self.to_client.drain()
            if self.key:
                self.heard.feed(event.data)
                self.end_if_closed()
            self.h2.acknowledge_received_data(event.flow_controlled_length, 1)
        elif isinstance(event, (StreamEnded, StreamReset)):
            self.is_over = True
        else:
            assert event is not None or isinstance(event, WindowUpdated)

    def head_of(self, found: dict[str, str], headers: list[tuple[str, str]]) -> bytes:
        """Give the response as HTTP/1.1 has it."""
        status = int(found[":status"])
        lines = [(name, value) for name, value in headers if not name.startswith(":")]
        if self.key and status == 200:
            digest = hashlib.sha1(self.key.encode() + GUID).digest()
            lines += [("Upgrade", "websocket"), ("Connection", "Upgrade")]
            lines += [("Sec-WebSocket-Accept", base64.b64encode(digest).decode())]
            status = 101
        else:
            lines += [("Connection", "close")]
        text = "".join(f"{name}: {value}\r\n" for name, value in lines)
        return f"HTTP/1.1 {status} {responses[status]}\r\n{text}\r\n".encode("latin-1")

    def end_if_closed(self) -> None:
        """End the stream behind the close frames of both, as clients do."""
        if self.said.has_close and self.heard.has_close:
            self.is_over = True

    async def flush(self) -> None:
        """Send what is to be sent."""
        self.to_server.write(self.h2.data_to_send())
        await self.to_server.drain()


async def main(port: str, socket: str, *command: str) -> int:
    """Serve until the server has ended."""
    server = await asyncio.create_subprocess_exec(*command)
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, server.send_signal, number)

    async def serve(client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        try:
            await Exchange(client, to_client).run(socket)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            to_client.close()

    async with await asyncio.start_server(serve, "127.0.0.1", int(port)):
        return await server.wait()


if __name__ == "__main__":
    sys.exit(asyncio.run(main(*sys.argv[1:])))
