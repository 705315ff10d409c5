"""Clients that talk without end, and check each byte of what comes back."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import random
import struct
import threading
from typing import TYPE_CHECKING, Any

from support.raw_peer import BINARY, CLOSE, PING, PONG, TEXT, RawPeer, build_frame

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest
    from typing_extensions import Self

    from support.server import Server

TIMEOUT_S = 60.0
# Between two messages, and between the pieces of one. They are about as long as each other: at any
# moment some clients are in the middle of a message, and the processors are free for the moves.
PAUSE_S, PAUSE_IN_MESSAGE_S = 0.06, 0.03
#: The beginning of what groups tell.
GROUP = b"group:"


class Wrong(Exception):
    """Something came that was not sent, or came twice, or in another order."""


class Conversation:
    """
    One client. It sends messages and checks the answers, until its connection ends.

    Attributes:
        answered: Messages that have come back, each of them exact.
        processes: The processes that have answered, in order.
        end: The close code; 1006 for an end without one; None while it is open.
        error: What was wrong.
    """

    def __init__(self, server: Server, path: str, seed: int, headers: dict[str, str]) -> None:
        self._server, self._path, self._headers = server, path, headers
        self._random = random.Random(seed)
        self.answered = 0
        self.processes: list[int] = []
        self.resumed = 0
        self.end: int | None = None
        self.error: BaseException | None = None
        self.is_quiet = False
        #: The messages of groups, in order: the first line of each.
        self.heard: list[str] = []
        #: Texts of JSON, in order: numbered messages, users that join and leave, messages of rooms.
        self.told: list[dict[str, Any]] = []
        self._sent: list[tuple[int, bytes]] = []
        self._reader: asyncio.StreamReader
        self._writer: asyncio.StreamWriter
        self._messages_in_flight = 4
        self._pongs: list[bytes] = []

    async def open(self) -> None:
        """Open the connection."""
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._server.port)
        key = base64.b64encode(os.urandom(16)).decode()
        lines = {
            "Host": self._server.host,
            "Upgrade": "websocket",
            "Connection": "Upgrade",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": key,
            **self._headers,
        }
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        self._writer.write(f"GET {self._path} HTTP/1.1\r\n{head}\r\n".encode())
        status = await asyncio.wait_for(self._reader.readuntil(b"\r\n\r\n"), TIMEOUT_S)
        if b" 101 " not in status.split(b"\r\n")[0]:
            raise ConnectionError(status.decode())

    async def talk(self) -> None:
        """Send and check until the end."""
        sending = asyncio.ensure_future(self._send_all())
        try:
            await self._check_all()
        except (asyncio.IncompleteReadError, ConnectionError):
            self.end = self.end or 1006
        except BaseException as error:
            self.error = error
            raise
        finally:
            sending.cancel()
            self._writer.close()

    async def closed(self) -> None:
        """Wait until the transport is gone."""
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()

    async def _send_all(self) -> None:
        while True:
            await asyncio.sleep(self._random.uniform(0, PAUSE_S))
            while self._pongs:
                self._writer.write(build_frame(PONG, self._pongs.pop(0)))
            if self.is_quiet or len(self._sent) >= self._messages_in_flight:
                continue
            size = self._random.choice((0, 5, 125, 126, 3000, 70_000))
            opcode = self._random.choice((TEXT, BINARY))
            payload = self._random.randbytes(size)
            if opcode == TEXT:
                payload = payload.hex().encode()
            self._sent.append((opcode, payload))
            await self._write(self._framed(opcode, payload))

    def _framed(self, opcode: int, payload: bytes) -> bytes:
        """A message, perhaps in fragments with a ping in between."""
        mask = self._random.randbytes(4)
        if self._random.random() < 0.5:
            return build_frame(opcode, payload, mask=mask)
        cut = self._random.randint(0, len(payload))
        return (
            build_frame(opcode, payload[:cut], fin=False, mask=mask)
            + build_frame(PING, b"there?", mask=mask)
            + build_frame(0, payload[cut:], mask=mask)
        )

    async def _write(self, data: bytes) -> None:
        """Send it in pieces, with pauses."""
        while data:
            size = self._random.choice((1, 3, 10, 1000, 50_000, len(data)))
            self._writer.write(data[:size])
            data = data[size:]
            if self._random.random() < 0.5:
                await asyncio.sleep(self._random.uniform(0, PAUSE_IN_MESSAGE_S))

    async def _frame(self) -> tuple[int, bytes]:
        first, length = await self._reader.readexactly(2)
        if length == 126:
            (length,) = struct.unpack("!H", await self._reader.readexactly(2))
        elif length == 127:
            (length,) = struct.unpack("!Q", await self._reader.readexactly(8))
        if not first & 0x80 or first & 0x70 or length > 1 << 20:
            raise Wrong(f"a frame that begins with {first:#x}, of {length} bytes")
        return first & 0x0F, await self._reader.readexactly(length)

    async def _message(self) -> tuple[int, bytes]:
        while True:
            opcode, payload = await self._frame()
            if opcode == PING:
                # Between two frames of ours.
                self._pongs.append(payload)
            elif opcode == PONG:
                if payload != b"there?":
                    raise Wrong(f"a pong with {payload!r}")
            elif opcode == CLOSE:
                (self.end,) = struct.unpack("!H", payload[:2])
                raise ConnectionResetError
            elif opcode == TEXT and payload.startswith(GROUP):
                self.heard.append(payload[len(GROUP) :].decode().partition("\n")[0])
            elif opcode == TEXT and payload.startswith(b"{"):
                self.told.append(json.loads(payload))
                self._on_told(self.told[-1])
            elif opcode in (TEXT, BINARY):
                return opcode, payload
            else:
                raise Wrong(f"opcode {opcode}")

    def _on_told(self, told: dict[str, Any]) -> None:
        """Take note of a text of JSON."""

    async def _check_all(self) -> None:
        while True:
            opcode, facts = await self._message()
            if opcode != TEXT:
                raise Wrong(f"{facts[:40]!r} in place of the number")
            number, process, resumed = map(int, facts.split())
            if number != self.answered + 1:
                raise Wrong(f"{number} after {self.answered}")
            answer = await self._message()
            if not self._sent or answer != self._sent[0]:
                raise Wrong(f"{answer[1][:40]!r}, not {self._sent[:1]!r}")
            del self._sent[0]
            self.answered = number
            self.resumed = resumed
            if process not in self.processes[-1:]:
                self.processes.append(process)


class Page(Conversation):
    """A page with rooms. It sends events without pause, and checks that each is answered once."""

    #: The rooms that it joins.
    rooms: tuple[str, ...] = ()

    def __init__(self, server: Server, path: str, seed: int, headers: dict[str, str]) -> None:
        super().__init__(server, path, seed, headers)
        self._number, self.asked = seed, 0
        #: The numbers of events, by the rooms to which they went.
        self.counts: dict[str, list[int]] = {}

    async def _send_all(self) -> None:
        for room in self.rooms:
            await self._ask({"join": room, "info": {"page": self._number}})
        while True:
            await asyncio.sleep(self._random.uniform(0, PAUSE_S))
            if not self.is_quiet and len(self._sent) < self._messages_in_flight:
                room = self._random.choice(self.rooms)
                await self._ask({"to": room, "event": "count", "data": self.asked})

    async def _ask(self, asked: dict[str, Any]) -> None:
        self.asked += 1
        self._sent.append((self.asked, b""))
        text = json.dumps({"id": self.asked, **asked})
        await self._write(self._framed(TEXT, text.encode()))

    async def ask(self, **asked: Any) -> None:
        """Send a request, or an event that is not answered."""
        await self._write(build_frame(TEXT, json.dumps(asked).encode(), mask=b"mask"))

    async def _check_all(self) -> None:
        opcode, payload = await self._message()
        raise Wrong(f"{opcode} {payload[:40]!r}")

    def _on_told(self, told: dict[str, Any]) -> None:
        if "id" not in told:
            return
        if not self._sent or told["id"] != self._sent.pop(0)[0]:
            raise Wrong(f"the answer {told}")
        answer = told.get("ok")
        if answer is None:
            raise Wrong(f"the answer {told}")
        self.answered += 1
        if "process" in answer:
            counts = self.counts.setdefault(answer["room"], [])
            counts.append(answer["count"])
            if counts[-1] != len(counts):
                raise Wrong(f"{answer['room']} counts {counts[-5:]}")
            self.resumed = answer["resumed"]
            if answer["process"] not in self.processes[-1:]:
                self.processes.append(answer["process"])


class Crowd:
    """Many conversations at once, in an event loop of their own; use as a context manager."""

    def __init__(
        self,
        server: Server,
        count: int,
        *paths: str,
        kind: type[Conversation] = Conversation,
        comes_at_once: bool = False,
        **headers: str,
    ) -> None:
        """
        Begin without connections.

        With `comes_at_once` each of several workers that serve one request at a time gets some. A
        worker with an event loop may accept all of them then.
        """
        self._comes_at_once = comes_at_once
        self.conversations = [
            kind(server, paths[at % len(paths)], at, headers) for at in range(count)
        ]
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._is_open = threading.Event()
        self._failed: BaseException | None = None

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._all())
        except asyncio.CancelledError:
            pass
        except BaseException as error:
            self._failed = error
        finally:
            self._is_open.set()
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            self._loop.close()

    async def _all(self) -> None:
        self._stop = asyncio.Event()
        if self._comes_at_once:
            await asyncio.gather(*(conversation.open() for conversation in self.conversations))
        else:
            for conversation in self.conversations:
                await conversation.open()
        tasks = [asyncio.ensure_future(each.talk()) for each in self.conversations]
        self._is_open.set()
        await self._stop.wait()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for conversation in self.conversations:
            await conversation.closed()

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._is_open.wait(TIMEOUT_S)
        self.check()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(TIMEOUT_S)

    def check(self) -> None:
        """Raise if anything was wrong for anybody."""
        if self._failed is not None:
            raise self._failed
        for conversation in self.conversations:
            if conversation.error is not None:
                raise conversation.error

    def all(self, is_so: Callable[[Conversation], bool]) -> bool:
        """Whether it is so for all of them, and nothing was wrong so far."""
        self.check()
        return all(is_so(each) for each in self.conversations)

    def ends(self) -> set[int | None]:
        """Return how connections have ended; None for those that are open."""
        self.check()
        return {each.end for each in self.conversations}


class Visitors:
    """Join a group, are seen there, and leave, one after the other."""

    def __init__(self, server: Server, path: str) -> None:
        self._server, self._path = server, path
        self._has_to_stop = threading.Event()
        self._thread = threading.Thread(target=self._work)
        self.names: list[str] = []
        self._thread.start()

    def _work(self) -> None:
        number = 0
        pauses = random.Random(7)
        while not self._has_to_stop.wait(pauses.uniform(0, 0.2)):
            number += 1
            name = f"visitor{number}"
            try:
                with RawPeer.open(self._server, f"{self._path}?name={name}") as peer:
                    peer.send_text("here")
                    for _ in range(2):
                        while peer.read_message().startswith(b"{"):
                            pass
                    # Shorter visits may be over before other processes hear of them.
                    self._has_to_stop.wait(pauses.uniform(0.1, 0.3))
            except (OSError, AssertionError):
                # Its worker ended before it was there, or it was closed with it.
                continue
            self.names.append(name)

    def stop(self) -> list[str]:
        """Stop, and return the names of those that were there for sure."""
        self._has_to_stop.set()
        self._thread.join()
        return self.names


def rounds(request: pytest.FixtureRequest, whole: int, part: int) -> range:
    """Give the rounds of a load: the whole of it with `--every-server`."""
    return range(1, 1 + (whole if request.config.getoption("--every-server") else part))
