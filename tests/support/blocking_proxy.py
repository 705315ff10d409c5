"""A proxy that lets no WebSocket through: it drops `Upgrade`, and may buffer responses."""

from __future__ import annotations

import asyncio
import re
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing_extensions import Self

    from support.server import Server


class BlockingProxy:
    """
    In front of a server on TCP; use as a context manager.

    Attributes:
        buffers: Whether it keeps a response until it is whole.
        is_down: Whether it drops whoever connects.
        port: Where it listens.
    """

    def __init__(self, server: Server, *, buffers: bool) -> None:
        self.buffers = buffers
        self.is_down = False
        self.port = 0
        self._upstream = server.address
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._tasks: set[asyncio.Task[None]] = set()

    def __enter__(self) -> Self:
        self._thread.start()
        self._listening = self._run(asyncio.start_server(self._serve, "127.0.0.1", 0))
        self.port = self._listening.sockets[0].getsockname()[1]
        return self

    def __exit__(self, *exc: object) -> None:
        self._run(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def url(self, path: str) -> str:
        """Return the address of a path here."""
        return f"http://127.0.0.1:{self.port}{path}"

    def cut(self) -> None:
        """Break all connections, on both sides."""
        self._run(self._cut())

    def _run(self, what):
        return asyncio.run_coroutine_threadsafe(what, self._loop).result(60)

    async def _end(self) -> None:
        # In the loop: its connections tell the server of their ends.
        self._listening.close()
        await self._cut()

    async def _cut(self) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        self._tasks.add(task)
        try:
            if not self.is_down:
                await self._exchange(reader, writer)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            writer.transport.abort()
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        found = re.search(rb"\r\ncontent-length: *(\d+)", head, re.IGNORECASE)
        body = await reader.readexactly(int(found[1])) if found else b""
        head = re.sub(
            rb"\r\n(upgrade|connection|keep-alive):[^\r]*", b"", head, flags=re.IGNORECASE
        )
        above_reader, above = await asyncio.open_connection(*self._upstream)
        try:
            above.write(head[:-2] + b"Connection: close\r\n\r\n" + body)
            answer = asyncio.ensure_future(self._answer(above_reader, writer))
            left = asyncio.ensure_future(reader.read(1))
            try:
                await asyncio.wait([answer, left], return_when=asyncio.FIRST_COMPLETED)
            finally:
                left.cancel()
                if not answer.done():
                    answer.cancel()
            await answer
        finally:
            above.transport.abort()

    async def _answer(self, above: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        kept = b""
        while chunk := await above.read(65536):
            if self.buffers:
                kept += chunk
            else:
                writer.write(chunk)
                await writer.drain()
        writer.write(kept)
        await writer.drain()
