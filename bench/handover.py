"""
The cost of a reload that nobody notices: ``python bench/handover.py`` (``--help``).

Connections of a handler that survives, over two workers of gunicorn gthread, move to two new ones
(HUP) while some of them echo. The first part says how long it takes until all have moved, how late
echoes are meanwhile, and what the workers hold before and after. The second part reloads again and
again, with messages of all sizes on each connection. Every byte is compared.

Server and clients share all cores. Needs the packages of tests/requirements.txt and a built engine
beside the Python sources. Linux only.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import random
import select
import signal
import socket
import sys
import tempfile
import time
from collections import Counter, deque
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import build
import machine
from machine import BenchError
from many_clients import HEAD_END, SPREAD, UPGRADE
from subject import Server, Subject
from work import Work

import table
from groups import Row, lines

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from typing_extensions import Self

WORKERS = 2
# The goals.
MOVED_S, P99_MS, BACK = 3.0, 300.0, 1.1
# Descriptors of a worker that may come and go, such as a request's.
SOME = 4
CONNECTIONS, TALKING = 10_000, 200
SIZES = (0, 5, 100, 126, 3000, 70_000)
OPENING = 64
PATIENCE_S = 120
# The beginning of a message: its number.
NUMBER = 4
# A mask that changes nothing, and a message from the server that is none of the client's.
MASK, MOVED = bytes(4), b"\x81\x05moved"
TEXT, CLOSE, BINARY = 0x81, 0x88, 0x82
READ = 1 << 18
NOISE = random.Random(1).randbytes(2 * max(SIZES))


class Client:
    """One connection: what it has sent and not got back, and how often it has moved."""

    __slots__ = ("came", "left", "moves", "next", "sent", "socket")

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self.came, self.left = bytearray(), bytearray()
        self.moves = self.next = 0
        #: The answer that is expected, and when its question was due, and sent.
        self.sent: deque[tuple[bytes, float, float]] = deque()

    def ask(self, size: int, due: float) -> None:
        """Send a message with its number and so many bytes, as far as the socket takes it."""
        at = self.next % len(SIZES) * 1000
        payload = self.next.to_bytes(NUMBER, "big") + NOISE[at : at + size]
        self.next += 1
        head = _head(len(payload))
        self.sent.append((head + payload, due, time.monotonic()))
        self.left += bytes([head[0], head[1] | 0x80]) + head[2:] + MASK + payload
        self.flush()

    def flush(self) -> None:
        """Send what is left."""
        try:
            del self.left[: self.socket.send(self.left)]
        except BlockingIOError:
            return


def _head(size: int) -> bytes:
    if size < 126:
        return bytes([BINARY, size])
    if size < 1 << 16:
        return bytes([BINARY, 126]) + size.to_bytes(2, "big")
    return bytes([BINARY, 127]) + size.to_bytes(8, "big")


class Crowd:
    """
    Clients of one server, in one thread.

    Attributes:
        wrong: How often something came that was not to come, by its kind.
        late: For each answer when its message was due, the seconds until it was sent, and those
            until the answer.
        moved_at: When a client was told last that it has moved.
    """

    def __init__(self, address: str) -> None:
        host, port = address.split(":")
        self._server, self._host = (host, int(port)), address
        self._epoll = select.epoll()
        self.clients: dict[int, Client] = {}
        self.wrong: Counter[str] = Counter()
        self.late: list[tuple[float, float, float]] = []
        self.moved_at = 0.0
        #: How many clients have moved how often.
        self.moves: Counter[int] = Counter()

    def open(self, path: str, count: int) -> None:
        """Open so many connections, some at a time."""
        request = f"GET {path} HTTP/1.1\r\nHost: {self._host}\r\n{UPGRADE}\r\n".encode()
        for first in range(0, count, OPENING):
            some = [socket.socket() for _ in range(first, min(count, first + OPENING))]
            for number, each in enumerate(some, first):
                source = f"127.0.{1 + number // SPREAD % SPREAD}.{1 + number % SPREAD}"
                each.bind((source, 0))
                each.connect(self._server)
                each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                each.sendall(request)
            for each in some:
                self._enter(each)
        self.moves[0] = count

    def _enter(self, connection: socket.socket) -> None:
        connection.settimeout(PATIENCE_S)
        head = b""
        # Nothing follows it: nothing was asked.
        while not head.endswith(HEAD_END):
            if not (piece := connection.recv(4096)):
                raise BenchError(f"a handshake was cut off: {head!r}")
            head += piece
        if b" 101 " not in head.partition(b"\r\n")[0]:
            raise BenchError(f"no WebSocket: {head!r}")
        connection.setblocking(False)
        self.clients[connection.fileno()] = Client(connection)
        self._epoll.register(connection.fileno(), select.EPOLLIN)

    def talk(self, rate: float, sizes: tuple[int, ...], until: Callable[[], bool]) -> None:
        """
        Send so many messages a second, each client in its turn, until something is so.

        The rate does not depend on the answers. Then waits until all answers have come.
        """
        began, turns = time.monotonic(), itertools.cycle(list(self.clients.values()))
        size, sent = itertools.cycle(sizes), 0
        give_up = began + PATIENCE_S
        while not until():
            due = began + sent / rate
            while due <= (now := time.monotonic()):
                if (client := next(turns)).socket.fileno() >= 0:
                    client.ask(next(size), due)
                    if client.left:
                        self._watch(client, select.EPOLLIN | select.EPOLLOUT)
                sent += 1
                due = began + sent / rate
            self._serve(min(due - now, 0.05))
            if now > give_up:
                raise BenchError(f"nothing more happens: {dict(self.moves)}, {dict(self.wrong)}")
        give_up = time.monotonic() + PATIENCE_S
        while any(client.sent for client in self.clients.values()):
            self._serve(0.05)
            if time.monotonic() > give_up:
                lost = sum(len(client.sent) for client in self.clients.values())
                self.wrong["lost"] += lost
                return

    def _watch(self, client: Client, events: int) -> None:
        self._epoll.modify(client.socket.fileno(), events)

    def _serve(self, seconds: float) -> None:
        for found, events in self._epoll.poll(max(0.0, seconds)):
            client = self.clients[found]
            if events & select.EPOLLOUT:
                client.flush()
                if not client.left:
                    self._watch(client, select.EPOLLIN)
            if events & ~select.EPOLLOUT:
                self._read(client)

    def _read(self, client: Client) -> None:
        try:
            piece = client.socket.recv(READ)
        except BlockingIOError:
            return
        except OSError:
            piece = b""
        if not piece:
            self._end(client, "cut off")
            return
        client.came += piece
        while client.came and self._take(client):
            pass

    def _take(self, client: Client) -> bool:
        """Compare the next frame; false when it is not whole, or the last one."""
        came = client.came
        if came[0] == CLOSE:
            self._end(client, "closed")
            code = int.from_bytes(came[2:4], "big")
            print(f"closed with {code} {came[4:].decode()!r}", file=sys.stderr, flush=True)
            return False
        expected = client.sent[0][0] if client.sent and came[0] == BINARY else MOVED
        if len(came) < len(expected) and expected.startswith(came):
            return False
        if not came.startswith(expected):
            self._end(client, self._fault(client))
            return False
        del came[: len(expected)]
        now = time.monotonic()
        if expected is MOVED:
            self.moves[client.moves] -= 1
            client.moves += 1
            self.moves[client.moves] += 1
            self.moved_at = now
        else:
            _, due, sent = client.sent.popleft()
            self.late.append((due, sent - due, now - due))
        return True

    def _fault(self, client: Client) -> str:
        """Say what is wrong with a frame that is not the expected one."""
        came, answered = client.came, client.next - len(client.sent)
        skip = {126: 4, 127: 10}.get(came[1], 2) if len(came) > 1 else 2
        number = int.from_bytes(came[skip : skip + NUMBER], "big")
        if came[0] != BINARY or number == answered:
            return "spoilt"
        return "twice" if number < answered else "lost"

    def _end(self, client: Client, why: str) -> None:
        self.wrong[why] += 1
        self.moves[client.moves] -= 1
        self._epoll.unregister(client.socket.fileno())
        client.socket.close()
        client.sent.clear()

    def close(self) -> None:
        """Close all."""
        for client in self.clients.values():
            client.socket.close()
        self._epoll.close()

    def have_moved(self, times: int) -> bool:
        """Whether all that are open have moved so often."""
        if not self.moves.total():
            raise BenchError(f"no connection is left: {dict(self.wrong)}")
        return self.moves[times] == self.moves.total()


@dataclass
class Held:
    """The memory of the workers in KiB, and their descriptors beside those of connections."""

    kib: int
    descriptors: int

    @classmethod
    def by(cls, workers: list[int], connections: int) -> Held:
        """Read it, once it has stopped moving."""
        kib = machine.settled_pss_kib(workers)
        opened = sum(len(os.listdir(machine.PROC / str(pid) / "fd")) for pid in workers)
        return cls(kib, opened - connections)

    def is_back(self, before: Held) -> bool:
        """Whether it is what it was, or less."""
        more = self.descriptors - before.descriptors
        return self.kib <= BACK * before.kib and more <= SOME * WORKERS

    def __str__(self) -> str:
        return f"{self.kib / 1024:,.1f} MiB, {self.descriptors} descriptors"


@dataclass
class Reload:
    """
    When the first client was told that it has moved, and the last one, in seconds since HUP.

    ``cpu_s`` is the processor time that the server took in between.
    """

    began: float
    first_s: float = 0.0
    last_s: float = 0.0
    cpu_s: float = 0.0


class Bench:
    """A server, and its clients; a context manager."""

    def __init__(self, path: str, connections: int) -> None:
        # Another run beside this one would be the same project.
        self._folder = tempfile.TemporaryDirectory(prefix="dws-bench-")
        subject = Subject(
            "handover",
            "a handler that survives",
            (),
            lambda descriptor, _: [
                *["gunicorn", "--bind", f"fd://{descriptor}", "--workers", str(WORKERS)],
                *["--worker-class", "gthread", "--threads", "4", "--log-level", "warning"],
                *["--graceful-timeout", "60", "--timeout", "120", "handover_site:application"],
            ],
            python_path=build.ROOT / "python",
            environment={"WEBSOCKET_RUNTIME_DIR": self._folder.name},
        )
        cores = ",".join(map(str, sorted(os.sched_getaffinity(0))))
        self._server = Server(
            subject, Path(sys.executable), core=cores, work=Work(connections, mode="idle")
        )
        self._connections = connections
        self.crowd = Crowd(self._server.address)
        self._wait_for(lambda: len(self._workers()) == WORKERS)
        self.crowd.open(path, connections)
        self.before = self.held()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.crowd.close()
        said = self._server.said()
        self._server.stop()
        self._folder.cleanup()
        if said:
            print(said, file=sys.stderr)

    def _workers(self) -> list[int]:
        return [pid for pid in machine.session_pids(self._server.leader) if self._is_worker(pid)]

    def _is_worker(self, pid: int) -> bool:
        return pid != self._server.leader

    def _wait_for(self, is_so: Callable[[], bool]) -> None:
        give_up = time.monotonic() + PATIENCE_S
        while not is_so():
            if time.monotonic() > give_up:
                raise BenchError(f"the workers are not as expected\n{self._server.said()}")
            time.sleep(0.01)

    def held(self) -> Held:
        """Return what the workers hold now."""
        return Held.by(self._workers(), self._connections)

    def _cpu_s(self) -> float:
        """Return the processor time of the server, with that of workers that are gone."""
        ticks = 0
        for pid in machine.session_pids(self._server.leader):
            with contextlib.suppress(OSError):
                fields = (machine.PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
                # Of the process, and of its children that have ended (proc(5)).
                ticks += sum(
                    map(int, fields[11:15] if pid == self._server.leader else fields[11:13])
                )
        return ticks / os.sysconf("SC_CLK_TCK")

    def reload(self, rate: float, sizes: tuple[int, ...], times: int) -> Reload:
        """Reload while clients talk, until all have moved so often."""
        old, crowd, done = self._workers(), self.crowd, Reload(time.monotonic())
        os.kill(self._server.leader, signal.SIGHUP)

        def have_moved() -> bool:
            if not done.first_s and crowd.moves[times]:
                done.first_s, done.cpu_s = time.monotonic() - done.began, -self._cpu_s()
            return crowd.have_moved(times)

        crowd.talk(rate, sizes, have_moved)
        done.cpu_s += self._cpu_s()
        done.last_s = crowd.moved_at - done.began
        self._wait_for(lambda: not set(old) & set(self._workers()))
        self._wait_for(lambda: len(self._workers()) == WORKERS)
        return done


def p99_ms(late: list[float]) -> float:
    """Return what 99 of 100 stay below."""
    return 1000 * sorted(late)[int(0.99 * len(late))] if late else float("nan")


def once(asked: argparse.Namespace) -> Iterator[Row]:
    """One reload with many connections, some of which echo."""
    with Bench(asked.path, asked.connections) as bench:
        crowd = bench.crowd
        ends = time.monotonic() + asked.quiet
        crowd.talk(asked.rate, (32,), lambda: time.monotonic() > ends)
        quiet = p99_ms([seconds for _, _, seconds in crowd.late])
        crowd.late.clear()
        done = bench.reload(asked.rate, (32,), 1)
        meanwhile = [each for each in crowd.late if each[0] <= crowd.moved_at]
        late = [seconds for _, _, seconds in meanwhile]
        own = p99_ms([seconds for _, seconds, _ in meanwhile])
        after = bench.held()
        what = f"{asked.connections:,} connections move"
        yield Row(
            f"{what}: from HUP to the last one",
            f"{done.last_s:.2f} s (the first one after {done.first_s:.2f} s; "
            f"CPU in between {1e6 * done.cpu_s / asked.connections:.0f} µs each)",
            f"< {MOVED_S:g} s",
            done.last_s < MOVED_S,
        )
        worst = p99_ms(late)
        yield Row(
            f"{what}: echoes meanwhile, p99",
            f"{worst:.1f} ms (before {quiet:.1f}; sent late by {own:.1f}; {len(late):,} in "
            f"{done.last_s:.1f} s, the slowest {1000 * max(late):.0f})",
            f"< {P99_MS:g} ms",
            worst < P99_MS,
        )
        yield Row(
            f"{what}: what both workers hold",
            f"{after} (before {bench.before})",
            f"≤ {BACK:g}x",
            after.is_back(bench.before),
        )
        yield faults(what, crowd)


def again(asked: argparse.Namespace) -> Iterator[Row]:
    """Many reloads with connections that all talk."""
    with Bench(asked.path, asked.talking) as bench:
        crowd, first = bench.crowd, None
        for number in range(1, 1 + asked.reloads):
            done = bench.reload(asked.rate, SIZES, number)
            print(f"reload {number}: {done.last_s:.2f} s", file=sys.stderr, flush=True)
            first = first or bench.held()
        after = bench.held()
        assert first is not None
        what = f"{asked.reloads} reloads with {asked.talking} connections"
        yield Row(
            f"{what}: what both workers hold",
            f"{after} (after the first one {first}, before {bench.before})",
            f"≤ {BACK:g}x",
            after.is_back(first),
        )
        yield faults(f"{what} and {len(crowd.late):,} messages up to {max(SIZES):,} B", crowd)


def faults(what: str, crowd: Crowd) -> Row:
    """Make the row of what must not be."""
    wrong = {kind: crowd.wrong[kind] for kind in ("closed", "cut off", "lost", "twice", "spoilt")}
    shown = ", ".join(f"{number} {kind}" for kind, number in wrong.items())
    return Row(what, shown, "0", not any(wrong.values()))


PARTS = {"once": once, "again": again}


def main() -> int:
    """Measure the chosen parts; 1 when a goal is missed, 2 when nothing could be measured."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    add = parser.add_argument
    add("--parts", default=",".join(PARTS), metavar="A,B")
    add("--path", default="/echo", help="/grouped has each connection in a group")
    add("--connections", type=int, default=CONNECTIONS, metavar="N", help="of the one reload")
    add("--reloads", type=int, default=100, metavar="N")
    add("--talking", type=int, default=TALKING, metavar="N", help="connections of many reloads")
    add("--rate", type=float, default=500.0, help="messages a second, of all together")
    add("--quiet", type=float, default=3.0, metavar="S", help="of echoes before the one reload")
    table.add_options(parser)
    asked = parser.parse_args()
    rows: list[Row] = []
    try:
        machine.need_program("taskset", "it is part of util-linux")
        machine.raise_descriptor_limit(max(asked.connections, asked.talking) + 500)
        for part in asked.parts.split(","):
            for row in PARTS[part](asked):
                rows.append(row)
                print(list(lines(rows))[-1], file=sys.stderr, flush=True)
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    how = (
        f"gunicorn gthread with {WORKERS} workers, clients and server on "
        f"{len(os.sched_getaffinity(0))} cores, {asked.rate:g} messages a second."
    )
    found = {"versions": machine.versions(Path(sys.executable), ("Django", "gunicorn"))}
    found |= {"figures": [asdict(row) for row in rows]}
    table.publish("The cost of a reload that nobody notices", how, lines(rows), found, asked.record)
    return int(not all(row.holds for row in rows))


if __name__ == "__main__":
    sys.exit(main())
