"""
All clients come back after a reload of all workers: ``python bench/storm.py --clients 50000``.

Each client joins one room, over workers of gunicorn that share a Redis cluster of three nodes. The
server is told to reload, closes all of them, and they come back with the delays of `dwebsocket.js`.
Each second has a row: clients in their room, processor time, memory. Server, Redis and clients
share all cores, so the times are those of a machine that has no other one for its clients. Needs
Redis and the packages of tests/requirements.txt, and a built engine beside the Python sources.
Linux only.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import heapq
import itertools
import json
import multiprocessing
import os
import random
import resource
import select
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import build
import charts
import machine
from machine import BenchError
from many_clients import HEAD_END, SPREAD, UPGRADE, frame

if TYPE_CHECKING:
    from collections.abc import Iterator

# A client that cannot connect, or is turned away, waits twice as long the next time, at random.
FIRST_TRY, FIRST_DELAY_S, LONGEST_DELAY_S = 2, 0.5, 30.0
# An attempt that takes longer is given up; a room that is refused is asked for again.
ATTEMPT_S, REJOIN_S = 10.0, 10.0
CLIENTS_OF_A_PROCESS = 12_500
OPENING = 100
NODES = 3
PATIENCE_S = 1200
IN_ROOM, REFUSED, CLOSED = range(3)


@dataclass
class Client:
    """One of them: its way is `connect`, `upgrade`, `join`, and then it is in its room."""

    number: int
    tries: int = 0
    socket: socket.socket | None = None
    state: str = "away"
    came: bytes = b""


class Crowd:
    """The clients of one process."""

    def __init__(self, address: str, numbers: range, members: int, counts: ctypes.Array) -> None:
        self._address = address
        host, port = address.split(":")
        self._server = host, int(port)
        self._members, self._counts = members, counts
        self._epoll = select.epoll()
        self._by_socket: dict[int, Client] = {}
        self._due: list[tuple[float, int, Client, socket.socket | None, str]] = []
        self._order = itertools.count()
        self._under_way = 0
        self._new = [Client(number) for number in reversed(numbers)]

    def run(self) -> None:
        """Connect all, and again when one is closed, for ever."""
        while True:
            now = time.monotonic()
            while self._new and self._under_way < OPENING:
                self._connect(self._new.pop())
            while self._due and self._due[0][0] <= now:
                self._begin(*heapq.heappop(self._due)[2:])
            wait = self._due[0][0] - now if self._due else 1.0
            for found, events in self._epoll.poll(min(max(wait, 0.0), 1.0)):
                self._serve(self._by_socket[found], events)

    def _later(self, seconds: float, client: Client) -> None:
        """Look at a client again, unless something has happened to it since."""
        due = (time.monotonic() + seconds, next(self._order), client, client.socket, client.state)
        heapq.heappush(self._due, due)

    def _begin(self, client: Client, its_socket: socket.socket | None, state: str) -> None:
        if client.socket is not its_socket or client.state != state:
            return
        if state == "away":
            self._connect(client)
        elif state == "refused":
            self._join(client)
        else:
            self._come_back(client)

    def _join(self, client: Client) -> None:
        assert client.socket is not None
        client.came, client.state = b"", "join"
        room = f"room-{client.number // self._members}"
        client.socket.sendall(frame(json.dumps({"id": 1, "join": room})))

    def _connect(self, client: Client) -> None:
        client.socket, client.state, client.came = socket.socket(), "connect", b""
        client.socket.setblocking(False)
        number = client.number
        client.socket.bind((f"127.0.{1 + number // SPREAD % SPREAD}.{1 + number % SPREAD}", 0))
        client.socket.connect_ex(self._server)
        self._under_way += 1
        self._by_socket[client.socket.fileno()] = client
        self._epoll.register(client.socket.fileno(), select.EPOLLIN | select.EPOLLOUT)
        self._later(ATTEMPT_S, client)

    def _serve(self, client: Client, events: int) -> None:
        assert client.socket is not None
        try:
            if client.state == "connect":
                request = f"GET /live HTTP/1.1\r\nHost: {self._address}\r\n{UPGRADE}\r\n"
                client.socket.sendall(request.encode())
                client.state = "upgrade"
                self._later(ATTEMPT_S, client)
                self._epoll.modify(client.socket.fileno(), select.EPOLLIN)
                return
            piece = client.socket.recv(1 << 16)
        except BlockingIOError:
            return
        except OSError:
            piece = b""
        if not piece:
            self._come_back(client)
        elif client.state != "room":
            self._take(client, piece)

    def _take(self, client: Client, piece: bytes) -> None:
        client.came += piece
        if client.state == "upgrade" and HEAD_END in client.came:
            if b" 101 " not in client.came.partition(b"\r\n")[0]:
                self._counts[REFUSED] += 1
                self._come_back(client)
                return
            self._under_way -= 1
            self._join(client)
        elif client.state == "join" and b'"error":' in client.came:
            client.state = "refused"
            self._counts[REFUSED] += 1
            self._later(random.random() * REJOIN_S, client)
        elif client.state == "join" and b'"id":1,' in client.came:
            client.came, client.state, client.tries = b"", "room", FIRST_TRY
            self._counts[IN_ROOM] += 1

    def _come_back(self, client: Client) -> None:
        assert client.socket is not None
        if client.state == "room":
            self._counts[IN_ROOM] -= 1
            self._counts[CLOSED] += 1
        elif client.state in ("connect", "upgrade"):
            self._under_way -= 1
        del self._by_socket[client.socket.fileno()]
        client.socket.close()
        client.socket, client.state = None, "away"
        delay = random.random() * min(LONGEST_DELAY_S, FIRST_DELAY_S * 2**client.tries)
        client.tries += 1
        self._later(delay, client)


@contextlib.contextmanager
def redis_cluster() -> Iterator[str]:
    """Run a cluster; yields the address for `LOCATION`."""
    ports, servers = [], []
    with contextlib.ExitStack() as stack:
        for _ in range(NODES):
            with socket.create_server(("127.0.0.1", 0)) as probe:
                ports.append(probe.getsockname()[1] % 20_000 + 20_000)
            command = ["redis-server", "--port", str(ports[-1]), "--bind", "127.0.0.1"]
            command += ["--save", "", "--cluster-enabled", "yes"]
            command += ["--cluster-config-file", f"nodes-{ports[-1]}.conf", "--dir", "/tmp"]
            servers.append(subprocess.Popen(command, stdout=subprocess.DEVNULL))
            stack.callback(servers[-1].wait)
            stack.callback(servers[-1].kill)
            stack.callback(Path(f"/tmp/nodes-{ports[-1]}.conf").unlink, missing_ok=True)
        nodes = [f"127.0.0.1:{port}" for port in ports]
        time.sleep(1)
        create = ["redis-cli", "--cluster", "create", *nodes, "--cluster-yes"]
        subprocess.run(create, check=True, stdout=subprocess.DEVNULL)
        yield f"redis+cluster://{','.join(nodes)}/0"


@contextlib.contextmanager
def gunicorn(asked: argparse.Namespace, location: str) -> Iterator[tuple[int, str]]:
    """Run the server; yields the number of its first process, and its address."""
    with socket.create_server(("127.0.0.1", 0), backlog=asked.backlog) as listening:
        address = f"127.0.0.1:{listening.getsockname()[1]}"
        command = [sys.executable, "-m", "gunicorn", "--bind", f"fd://{listening.fileno()}"]
        command += ["--workers", str(asked.workers), "--worker-class", "gthread", "--threads", "4"]
        command += ["--backlog", str(asked.backlog), "--log-level", "warning"]
        # Half of the one, and the other, end a worker.
        command += ["--timeout", str(2 * asked.drain + 60)]
        command += ["--graceful-timeout", str(asked.drain + 30), "rooms_site:application"]
        groups = {"BACKEND": "dwebsocket.groups.redis", "LOCATION": location}
        environment = {
            **os.environ,
            "PYTHONPATH": f"{build.ROOT / 'python'}:{build.ROOT / 'bench' / 'servers'}",
            "BENCH_GROUPS": json.dumps(groups),
            "BENCH_DRAIN": str(asked.drain),
        }
        server = subprocess.Popen(
            command, env=environment, pass_fds=[listening.fileno()], start_new_session=True
        )
    try:
        yield server.pid, address
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)
        server.wait()


class Sampler:
    """A row for each second: seconds since `begin`, clients in their rooms, cores, MiB."""

    def __init__(self, master: int, all_counts: list[ctypes.Array]) -> None:
        self._master, self._all_counts = master, all_counts
        self._used: dict[int, float] = {}
        self._at = time.monotonic()
        self.begin = self._at

    def count(self, what: int) -> int:
        """Return a number of all clients."""
        return sum(counts[what] for counts in self._all_counts)

    def row(self) -> dict[str, float]:
        """Wait a second, and return what it was like."""
        time.sleep(max(0.0, self._at + 1 - time.monotonic()))
        busy, kib = 0.0, 0
        pids = machine.session_pids(self._master)
        for pid in pids:
            with contextlib.suppress(OSError, BenchError):
                used = machine.cpu_s([pid])
                busy += used - self._used.get(pid, 0.0)
                self._used[pid] = used
        # Reading the memory is slow, so the time ends before it.
        now = time.monotonic()
        for pid in pids:
            with contextlib.suppress(OSError, BenchError):
                kib += machine.pss_kib([pid])
        cores = busy / (now - self._at)
        self._at = now
        return {
            "s": round(now - self.begin, 1),
            "in rooms": self.count(IN_ROOM),
            "refused": self.count(REFUSED),
            "cores": round(cores, 2),
            "MiB": round(kib / 1024),
        }

    def until(self, clients: int) -> list[dict[str, float]]:
        """Return the rows until so many clients are in their rooms."""
        rows, give_up = [], time.monotonic() + PATIENCE_S
        while not rows or rows[-1]["in rooms"] < clients:
            rows.append(self.row())
            print(json.dumps(rows[-1]), file=sys.stderr)
            if time.monotonic() > give_up:
                raise BenchError(f"{clients - rows[-1]['in rooms']} clients are in no room")
        return rows


def mean_cores(rows: list[dict[str, float]]) -> list[float]:
    """
    Return the mean of the thirty rows around each row.

    One second says little on a busy machine. A row is read late there, about when the next row
    begins. So its processor time is counted until the next row begins.
    """
    times = [0.0, *(row["s"] for row in rows)]
    busy = [row["cores"] * (times[at + 1] - times[at]) for at, row in enumerate(rows)]
    ends = [0.0, *times[2:], times[-1] + 1]
    means = []
    for at in range(len(rows)):
        first = max(0, min(at - 15, len(rows) - 30))
        last = min(first + 30, len(rows))
        means.append(sum(busy[first:last]) / (ends[last] - ends[first]))
    return means


def chart(rows: list[dict[str, float]], clients: int) -> str:
    """Return the curves of a reload as SVG: clients in their rooms, cores, memory."""
    width, height, left, gap = 540, 110, 16, 34
    last = max(row["s"] for row in rows)
    rows = [{**row, "cores": mean} for row, mean in zip(rows, mean_cores(rows), strict=True)]
    parts = []
    for number, (key, title) in enumerate(
        (
            ("in rooms", "Clients in their rooms"),
            ("cores", "Cores, mean of 30 s"),
            ("MiB", "Memory, MiB"),
        )
    ):
        most = clients if key == "in rooms" else max(row[key] for row in rows)
        digits = 1 if key == "cores" else 0
        top = gap + number * (height + gap)
        points = " ".join(
            f"{left + row['s'] / last * (width - 2 * left):.1f},"
            f"{top + height * (1 - row[key] / most):.1f}"
            for row in rows
        )
        title += f": up to {most:,.{digits}f}"
        parts.append(
            f'<text class="title" x="{left}" y="{top - 10}">{title}</text>'
            f'<polyline fill="none" class="line" points="{points}"/>'
            f'<path class="range" d="M{left} {top + height}H{width - left}"/>'
        )
    total = gap + 3 * (height + gap)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {total}" width="{width}">'
        f"<style>{charts.STYLE} .line {{ stroke: #0969da; stroke-width: 2 }}</style>"
        f'<rect class="card" width="{width}" height="{total}" rx="6"/>{"".join(parts)}'
        f'<text class="note" x="{left}" y="{total - 12}">0 to {last:,.0f} s after the reload</text>'
        "</svg>\n"
    )


def main() -> None:
    """Measure one reload."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument("--clients", type=int, default=5000)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--members", type=int, default=50, help="of a room")
    parser.add_argument("--drain", type=int, default=0, help="WEBSOCKET_DRAIN")
    parser.add_argument("--backlog", type=int, default=4096, help="of gunicorn")
    parser.add_argument("--chart", type=Path, help="write the curves to this file")
    asked = parser.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    shared = multiprocessing.get_context("fork")
    with contextlib.ExitStack() as stack:
        location = stack.enter_context(redis_cluster())
        master, address = stack.enter_context(gunicorn(asked, location))
        all_counts = []
        for first in range(0, asked.clients, CLIENTS_OF_A_PROCESS):
            numbers = range(first, min(asked.clients, first + CLIENTS_OF_A_PROCESS))
            all_counts.append(multiprocessing.RawArray(ctypes.c_long, 3))
            crowd = Crowd(address, numbers, asked.members, all_counts[-1])
            process = shared.Process(target=crowd.run, daemon=True)
            process.start()
            stack.callback(process.join)
            stack.callback(process.kill)
        sampler = Sampler(master, all_counts)
        opened = sampler.until(asked.clients)
        time.sleep(10)
        sampler.row()
        idle = sampler.row()
        sampler.begin = time.monotonic()
        os.kill(master, signal.SIGHUP)
        # Some are back before the last ones are closed.
        back = sampler.until(0)
        while sampler.count(CLOSED) < asked.clients:
            back.append(sampler.row())
            print(json.dumps(back[-1]), file=sys.stderr)
        back += sampler.until(asked.clients)
    if asked.chart:
        asked.chart.write_text(chart(back, asked.clients))
    del asked.chart
    print(json.dumps({**vars(asked), "opened": opened, "idle": idle, "back": back}))


if __name__ == "__main__":
    main()
