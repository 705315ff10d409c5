"""
The cost of one flooding client for fifty others: ``python bench/fairness.py`` (``--help``).

Starts a server of the test project on one core, has fifty clients echo small messages at a modest
pace, and says how long their answers take (p99), without and with a client beside them that sends
as fast as it can. A flood that is cut off comes back soon, not at once: opening connections is
another attack. Needs the packages of tests/requirements.txt and a built engine beside the Python
sources. Linux only.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import selectors
import socket
import struct
import sys
import threading
import time
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import machine

import table

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from support.raw_peer import BINARY, CONTINUATION, PING, PONG, TEXT, RawPeer, build_frame
from support.server import GUNICORN_GEVENT, GUNICORN_GTHREAD, GUNICORN_SYNC, Kind, Server

if TYPE_CHECKING:
    from collections.abc import Iterator
    from multiprocessing.connection import Connection as Pipe

ROOT = Path(__file__).resolve().parent.parent
KINDS = {"sync": GUNICORN_SYNC, "gthread": GUNICORN_GTHREAD, "gevent": GUNICORN_GEVENT}
VIEWS = {"sync": "/echo/", "async": "/async-echo/"}
CLIENTS = 50
PAYLOAD = b"x" * 32
# Below the default limit, and a thousandth of that on the wire.
BOMB_BYTES = 16 * 1024 * 1024 - 1
FRAGMENTS = 50_000
# The goal: whichever is more.
TIMES, MORE_MS = 3.0, 5.0
START_S = 20.0
LOOK_S = 0.5
COME_BACK_S = 0.1


def _bomb() -> bytes:
    squeeze = zlib.compressobj(9, zlib.DEFLATED, -15)
    squeezed = squeeze.compress(bytes(BOMB_BYTES)) + squeeze.flush(zlib.Z_SYNC_FLUSH)
    return build_frame(BINARY, squeezed[:-4], rsv=4)


def _fragments() -> bytes:
    middle = build_frame(CONTINUATION, b"x", fin=False) * FRAGMENTS
    return build_frame(TEXT, b"", fin=False) + middle + build_frame(CONTINUATION)


FLOODS = {
    "empty pings": lambda: build_frame(PING) * 10_000,
    "unsolicited pongs": lambda: build_frame(PONG) * 10_000,
    "empty messages": lambda: build_frame(TEXT) * 10_000,
    "one-byte fragments": _fragments,
    "bombs": _bomb,
    "1 MiB echoes": lambda: build_frame(BINARY, bytes(1024 * 1024)),
}


@dataclass
class Row:
    """One flood beside one kind of view."""

    flood: str
    view: str
    without_ms: float
    with_ms: float
    #: Seconds until the flood was cut off for the first time, and how often it was.
    cut_after_s: float | None
    cuts: int

    @property
    def limit_ms(self) -> float:
        """Return the longest time that the goal allows."""
        return max(self.without_ms * TIMES, self.without_ms + MORE_MS)

    @property
    def holds(self) -> bool:
        """Whether it is reached."""
        return self.with_ms <= self.limit_ms


# --- the clients, each kind in a process of its own ----------------------------------------------


def flood(pipe: Pipe, address: Any, path: str, name: str, core: int) -> None:
    """Pour from the first message on the pipe until the second, and report when it was cut off."""
    os.sched_setaffinity(0, {core})
    # The measuring process comes first where both share a core.
    os.nice(10)
    bytes_ = FLOODS[name]()
    headers = {"Sec-WebSocket-Extensions": "permessage-deflate"} if name == "bombs" else {}
    pipe.send("ready")
    pipe.recv()
    start, cuts = time.monotonic(), []
    while not pipe.poll():
        peer = RawPeer.open(_Address(address), path, headers=headers)
        reader = threading.Thread(target=_drop_all, args=(peer.sock,))
        reader.start()
        try:
            while not pipe.poll() and reader.is_alive():
                peer.send(bytes_)
        except OSError:
            pass
        if not pipe.poll():
            cuts.append(time.monotonic() - start)
            time.sleep(COME_BACK_S)
        _shut(peer.sock)
        reader.join()
        peer.close()
    pipe.send(cuts)


def _drop_all(sock: socket.socket) -> None:
    try:
        while sock.recv(1 << 20):
            pass
    except OSError:
        pass


def _shut(sock: socket.socket) -> None:
    try:
        sock.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass


class _Address:
    """The attributes of a server that `RawPeer.open` uses."""

    def __init__(self, address: Any) -> None:
        self.address = address
        self.host = "{}:{}".format(*address)


def echo(pipe: Pipe, address: Any, path: str, pause: float, core: int) -> None:
    """Echo with all clients, and report the latencies of each window that is asked for."""
    os.sched_setaffinity(0, {core})
    peers = [RawPeer.open(_Address(address), path) for _ in range(CLIENTS)]
    frame = build_frame(TEXT, PAYLOAD)
    answer = struct.pack("!BB", 0x81, len(PAYLOAD)) + PAYLOAD
    pipe.send("ready")
    while seconds := pipe.recv():
        pipe.send(_window(peers, frame, len(answer), pause, seconds))


def _window(
    peers: list[RawPeer], frame: bytes, size: int, pause: float, seconds: float
) -> list[float]:
    selector = selectors.EpollSelector()
    for peer in peers:
        selector.register(peer.sock, selectors.EVENT_READ, peer)
    now = time.monotonic()
    end = now + seconds
    due = {peer: now + random.random() * pause for peer in peers}
    sent: dict[RawPeer, float] = {}
    came: dict[RawPeer, int] = dict.fromkeys(peers, 0)
    latencies = []
    while True:
        now = time.monotonic()
        for peer in [peer for peer, at in due.items() if at <= now]:
            del due[peer]
            if now < end:
                sent[peer] = time.monotonic()
                peer.send(frame)
        if not due and not sent:
            break
        wait = min(due.values(), default=now + LOOK_S) - time.monotonic()
        for key, _ in selector.select(max(min(wait, LOOK_S), 0)):
            peer = key.data
            came[peer] += len(peer.sock.recv(4096))
            if came[peer] == size:
                now = time.monotonic()
                latencies.append(now - sent.pop(peer))
                came[peer] = 0
                due[peer] = now + pause * random.uniform(0.5, 1.5)
        if sent and time.monotonic() - min(sent.values()) > START_S:
            latencies += [START_S] * len(sent)
            break
    selector.close()
    return latencies


# --- one row -------------------------------------------------------------------------------------


def measure(kind: Kind, name: str, view: str, asked: argparse.Namespace) -> Row:
    """Measure one row on a fresh server."""
    # Threads and processes inherit the core.
    os.sched_setaffinity(0, {asked.server_core})
    path = VIEWS[view]
    with Server(kind) as server:
        os.sched_setaffinity(0, {asked.load_core})
        address = server.address
        quiet, quiet_process = _begin(echo, address, path, asked.pause, asked.load_core)
        pouring, flood_process = _begin(flood, address, path, name, asked.load_core)
        try:
            _ask(quiet, 0.5)
            without = _ask(quiet, asked.duration)
            pouring.send("pour")
            _ask(quiet, 0.5)
            beside = _ask(quiet, asked.duration)
            pouring.send("stop")
            cuts = pouring.recv() if pouring.poll(START_S) else []
            quiet.send(0)
        finally:
            for process in (quiet_process, flood_process):
                process.kill()
                process.join()
    p99 = [1000 * percentile(latencies) for latencies in (without, beside)]
    return Row(name, view, p99[0], p99[1], cuts[0] if cuts else None, len(cuts))


def _begin(work: Any, *arguments: Any) -> tuple[Pipe, multiprocessing.Process]:
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.Process(target=work, args=(theirs, *arguments), daemon=True)
    process.start()
    if not ours.poll(START_S) or ours.recv() != "ready":
        raise machine.BenchError("a client did not come up")
    return ours, process


def _ask(pipe: Pipe, seconds: float) -> list[float]:
    pipe.send(seconds)
    found: list[float] = pipe.recv()
    return found


def percentile(latencies: list[float], share: float = 0.99) -> float:
    """Return the latency that so many stay below."""
    ordered = sorted(latencies)
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)]


# --- the report ----------------------------------------------------------------------------------


def lines(rows: list[Row]) -> Iterator[str]:
    """Make the lines of the table."""
    yield "| flood | views | p99 without, ms | with, ms | allowed, ms | goal | cut off |"
    yield "|---|---|---|---|---|---|---|"
    for row in rows:
        cut = f"after {row.cut_after_s:.1f} s, {row.cuts} times" if row.cut_after_s else "no"
        yield (
            f"| {row.flood} | {row.view} | {row.without_ms:.2f} | {row.with_ms:.2f} "
            f"| {row.limit_ms:.2f} | {'holds' if row.holds else 'MISSED'} | {cut} |"
        )


def main() -> int:
    """Measure the chosen floods; 1 when a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    add = parser.add_argument
    add("--server", choices=KINDS, default="gthread")
    add("--views", default=",".join(VIEWS), metavar="A,B")
    add("--floods", default=",".join(FLOODS), metavar="A,B")
    add("--duration", type=float, default=3.0, metavar="S", help="of each window")
    add("--pause", type=float, default=0.05, metavar="S", help="of a client after each answer")
    table.add_options(parser)
    asked = parser.parse_args()
    rows = []
    for name in asked.floods.split(","):
        for view in asked.views.split(","):
            rows.append(measure(KINDS[asked.server], name, view, asked))
            print(list(lines(rows))[-1], file=sys.stderr, flush=True)
    how = (
        f"gunicorn {asked.server} with one worker on one core, {CLIENTS} clients that echo "
        f"{len(PAYLOAD)} B and pause for {asked.pause * 1000:.0f} ms, windows of "
        f"{asked.duration:.0f} s. The goal: {TIMES:.0f} times what it is without the flood, or "
        f"{MORE_MS:.0f} ms more."
    )
    found = {"server": asked.server, "duration_s": asked.duration, "pause_s": asked.pause}
    found |= {"figures": [row.__dict__ | {"holds": row.holds} for row in rows]}
    title = "The cost of one flooding client for fifty others"
    table.publish(title, how, lines(rows), found, asked.record)
    return int(not all(row.holds for row in rows))


if __name__ == "__main__":
    sys.exit(main())
