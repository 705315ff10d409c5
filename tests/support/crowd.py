"""
Thousands of clients, in processes of their own.

A process may have so many descriptors only, and one address so many ports: each part of a crowd is
another process, and its clients come from addresses all over 127.0.0.0/8. Run as a program this is
one such part: it obeys lines on standard input, and answers each with a line of JSON.
"""

from __future__ import annotations

import contextlib
import errno
import json
import resource
import select
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

TESTS = Path(__file__).resolve().parent.parent
if __name__ == "__main__":
    sys.path.insert(0, str(TESTS))

from support.raw_peer import CLOSE, PING, PONG, TEXT, build_frame, handshake_request  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from support.server import Server

# The most that one part holds: what a process may have, less what it needs itself.
PART = 19_500
# Clients of one address. Ports are some 28,000.
PER_ADDRESS = 1_000
# Connections begun before any is looked after.
PACE = 100
# Chooses the port when it is known where to: else it would have to be free for all servers.
IP_BIND_ADDRESS_NO_PORT = 24
# How long everything together may take; broken servers only.
PATIENCE_S = 280


class Broken(Exception):
    """A server did not do what it should."""


class TurnedAway(Exception):
    """The kernel has forgotten a client for which the server's queue had no room."""


class Client:
    """One connection of a crowd."""

    def __init__(self, number: int, address: tuple[str, int], request: bytes) -> None:
        self.number = number
        self.buffer = bytearray()
        self.is_open = False
        self.is_over = False
        self.answer: bytes | None = None
        self._request = request
        self.sock = socket.socket()
        self.sock.setblocking(False)
        self.sock.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
        place = number // PER_ADDRESS
        self.sock.bind((f"127.{1 + place // 250}.{place % 250}.1", 0))
        error = self.sock.connect_ex(address)
        if error not in (0, errno.EINPROGRESS):
            raise OSError(error, "cannot connect")

    def on_writable(self) -> None:
        """The connection is up: send the handshake."""
        error = self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error == errno.ECONNRESET:
            raise TurnedAway
        if error:
            raise Broken(f"client {self.number} cannot connect: {errno.errorcode[error]}")
        self.sock.send(self._request)

    def on_readable(self) -> int:
        """Read what has come, answer pings; gives how many there were."""
        try:
            data = self.sock.recv(65536)
        except BlockingIOError:
            return 0
        except ConnectionResetError:
            if not (self.is_open or self.buffer):
                raise TurnedAway from None
            data = b""
        self.is_over = self.is_over or not data
        self.buffer += data
        if not self.is_open:
            self._read_head()
        pings = 0
        while self.is_open and (frame := self._frame()) is not None:
            opcode, payload = frame
            if opcode == PING:
                self.sock.send(build_frame(PONG, payload))
                pings += 1
            elif opcode == CLOSE:
                self.is_over = True
            elif opcode != PONG:
                self.answer = payload
        return pings

    def _read_head(self) -> None:
        head, end, rest = bytes(self.buffer).partition(b"\r\n\r\n")
        if end:
            if not head.startswith(b"HTTP/1.1 101 "):
                raise Broken(f"client {self.number} got {head[:300]!r} {rest[:200]!r}")
            self.buffer = bytearray(rest)
            self.is_open = True
        elif self.is_over:
            raise Broken(f"client {self.number} was hung up on before an answer: {head[:300]!r}")

    def _frame(self) -> tuple[int, bytes] | None:
        data = self.buffer
        if len(data) < 2:
            return None
        length, start = data[1], 2
        if length == 126:
            length, start = int.from_bytes(data[2:4], "big"), 4
        elif length == 127:
            length, start = int.from_bytes(data[2:10], "big"), 10
        if len(data) < start + length:
            return None
        assert data[0] & 0xF0 == 0x80, f"no whole message: {bytes(data[:8])!r}"
        frame = data[0] & 0x0F, bytes(data[start : start + length])
        del data[: start + length]
        return frame


class Part:
    """The clients of this process, and the commands for them."""

    def __init__(self, host: str, port: int, path: str, first: int, count: int) -> None:
        self._address = host, port
        self._request = handshake_request(path, f"{host}:{port}")
        self._numbers = range(first, first + count)
        self._epoll = select.epoll()
        self._clients: dict[int, Client] = {}
        self._turned_away: list[int] = []
        self.pings = 0

    def turn(self, timeout: float) -> list[Client]:
        """Serve the clients that are ready, ``timeout`` seconds at most; gives these clients."""
        served = []
        for descriptor, events in self._epoll.poll(timeout, 1000):
            if descriptor not in self._clients:
                continue
            client = self._clients[descriptor]
            served.append(client)
            try:
                if events & select.EPOLLOUT:
                    client.on_writable()
                    self._epoll.modify(descriptor, select.EPOLLIN)
                else:
                    self.pings += client.on_readable()
            except TurnedAway:
                self._turned_away.append(client.number)
                client.is_over = True
            if client.is_over:
                self._epoll.unregister(descriptor)
                del self._clients[descriptor]
                client.sock.close()
        return served

    def _turn_until(self, done: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not done():
            self.turn(1)
            if time.monotonic() > deadline:
                raise Broken(f"not within {PATIENCE_S} s: {what}")

    def open(self, at_once: int) -> dict[str, Any]:
        """
        Connect all, so many at a time; none may be refused, or wait for ever.

        Clients that the kernel turns away try again, as real clients do.
        """
        began = time.monotonic()
        waiting: set[Client] = set()
        left = list(reversed(self._numbers))
        turned_away = 0
        while left or waiting:
            # A few, and then see to those that are connected: servers soon hang up on the silent.
            for _ in range(min(len(left), at_once - len(waiting), PACE)):
                client = Client(left.pop(), self._address, self._request)
                self._clients[client.sock.fileno()] = client
                self._epoll.register(client.sock, select.EPOLLOUT)
                waiting.add(client)
            busy = left and len(waiting) < at_once
            served = self.turn(0 if busy else 1)
            waiting.difference_update(one for one in served if one.is_open or one.is_over)
            turned_away += len(self._turned_away)
            left[:0] = self._turned_away
            self._turned_away.clear()
            if time.monotonic() > began + PATIENCE_S:
                raise Broken(f"{len(waiting)} clients have no answer after {PATIENCE_S} s")
        seconds = time.monotonic() - began
        return {"open": len(self._clients), "seconds": seconds, "turned_away": turned_away}

    def echo(self, size: int, at_once: int) -> dict[str, Any]:
        """Have each send its number, filled up to ``size``, and wait for the same back."""
        began = time.monotonic()
        rest = list(self._clients.values())
        waiting: dict[Client, bytes] = {}
        while rest or waiting:
            while rest and len(waiting) < at_once:
                client = rest.pop()
                text = str(client.number).ljust(size, ".").encode()
                waiting[client], client.answer = text, None
                self._send(client, build_frame(TEXT, text))
            for client in self.turn(1):
                if client.answer is None and not client.is_over:
                    continue
                if (text := waiting.pop(client, None)) is not None and client.answer != text:
                    raise Broken(f"client {client.number} sent {text!r}, got {client.answer!r}")
            if time.monotonic() > began + PATIENCE_S:
                raise Broken(f"{len(waiting)} clients have no echo after {PATIENCE_S} s")
        return {"echoed": len(self._clients), "seconds": time.monotonic() - began}

    def _send(self, client: Client, data: bytes) -> None:
        client.sock.setblocking(True)
        client.sock.sendall(data)
        client.sock.setblocking(False)

    def idle(self, seconds: float) -> dict[str, Any]:
        """Only answer pings for a while; says how many came."""
        before, until = self.pings, time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            self.turn(left)
        return {"open": len(self._clients), "pings": self.pings - before}

    def close(self) -> dict[str, Any]:
        """Send a close frame for each, and wait until the server has hung up on all."""
        for client in list(self._clients.values()):
            client.sock.send(build_frame(CLOSE, b"\x03\xe8"))
        self._turn_until(lambda: not self._clients, "all are closed")
        return {"open": 0}

    def obey(self) -> Iterator[dict[str, Any]]:
        """Run the commands on standard input; pings are answered meanwhile."""
        typed = b""
        self._epoll.register(sys.stdin, select.EPOLLIN)
        while True:
            self.turn(60)
            ready, _, _ = select.select([sys.stdin], [], [], 0)
            if not ready:
                continue
            data = sys.stdin.buffer.raw.read(4096)  # type: ignore[attr-defined]
            if not data:
                return
            *lines, typed = (typed + data).split(b"\n")
            for line in lines:
                name, *values = line.decode().split()
                yield getattr(self, name)(*map(float if name == "idle" else int, values))


@dataclass
class Crowd:
    """Some parts, as one."""

    parts: list[subprocess.Popen[str]]

    @classmethod
    @contextlib.contextmanager
    def of(cls, server: Server, path: str, count: int) -> Iterator[Crowd]:
        """So many clients of a server, yet to be opened; all are gone in the end."""
        with contextlib.ExitStack() as stack:
            crowd = cls([])
            for first in range(0, count, PART):
                arguments = [*map(str, server.address), path, str(first)]  # type: ignore[arg-type]
                command = [sys.executable, __file__, *arguments, str(min(PART, count - first))]
                part = stack.enter_context(
                    subprocess.Popen(
                        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
                    )
                )
                stack.callback(part.kill)
                crowd.parts.append(part)
            yield crowd

    def tell(self, line: str) -> list[dict[str, Any]]:
        """
        Have all parts run a command at the same time; gives the answer of each.

        Raises:
            AssertionError: The server did not do its part.
        """
        for part in self.parts:
            assert part.stdin is not None
            part.stdin.write(f"{line}\n")
            part.stdin.flush()
        answers = []
        for part in self.parts:
            assert part.stdout is not None
            answer = json.loads(part.stdout.readline() or '{"broken": "a part of it died"}')
            assert "broken" not in answer, answer["broken"]
            answers.append(answer)
        return answers

    def sum(self, line: str, name: str) -> int:
        """As :meth:`tell`; gives the sum of one figure."""
        return sum(answer[name] for answer in self.tell(line))


def main(host: str, port: str, path: str, first: str, count: str) -> None:
    """Be one part of a crowd."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    part = Part(host, int(port), path, int(first), int(count))
    try:
        for answer in part.obey():
            print(json.dumps(answer), flush=True)
    except (Broken, OSError) as problem:
        print(json.dumps({"broken": str(problem)}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
