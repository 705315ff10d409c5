"""
The cost of a client's messages: ``python bench/client.py`` (``--help``).

A client on one core sends messages to an echo server on another one and reads them back, several
at a time in flight. Measured is the client's own CPU time, all of its threads included: messages
(there and back) a CPU second. `dwebsocket.connect` and `aconnect` beside the clients of
`websockets` (in threads and on asyncio), `websocket-client`, `aiohttp` and `picows`, each in a
process of its own, without compression, on the event loop of the standard library. The server is
picows's. Needs these packages, and a built engine beside the Python sources. Linux only.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import json
import os
import socket
import statistics
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import build
import machine

import table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# The goal: so many times the messages of this rival, a CPU second, of the same kind.
TIMES = 2
# The size of a message, how many are in flight, and how many are sent in a run.
WORKS = ((32, 1, 10_000), (32, 16, 40_000), (4096, 16, 20_000), (1 << 20, 1, 200))
WARM_UP = 50


@dataclass(frozen=True)
class Work:
    """The work of a client."""

    url: str
    size: int
    flight: int
    messages: int

    @property
    def message(self) -> bytes:
        """The message that it sends."""
        return b"x" * self.size


@dataclass
class Row:
    """One client at one work: messages a CPU second."""

    name: str
    size: int
    flight: int
    messages_per_cpu_s: float


def exchange(work: Work, send: Callable[[bytes], object], receive: Callable[[], object]) -> float:
    """Send and receive in a thread; give the CPU seconds."""
    message = work.message
    for _ in range(work.flight):
        send(message)
    for turn in range(WARM_UP + work.messages):
        if turn == WARM_UP:
            before = time.process_time()
        receive()
        send(message)
    cpu_s = time.process_time() - before
    for _ in range(work.flight):
        receive()
    return cpu_s


async def exchange_in_loop(work: Work, send: Any, receive: Any) -> float:
    """As `exchange`, with coroutine functions."""
    message = work.message
    for _ in range(work.flight):
        await send(message)
    for turn in range(WARM_UP + work.messages):
        if turn == WARM_UP:
            before = time.process_time()
        await receive()
        await send(message)
    cpu_s = time.process_time() - before
    for _ in range(work.flight):
        await receive()
    return cpu_s


# -- the clients -----------------------------------------------------------------------------------


def ours(work: Work) -> float:
    """`dwebsocket.connect`."""
    from dwebsocket import connect

    with connect(work.url, compression=False, proxy=None) as websocket:
        return exchange(work, websocket.send, websocket.receive)


def ours_in_loop(work: Work) -> float:
    """`dwebsocket.aconnect`."""
    from dwebsocket import aconnect

    async def main() -> float:
        async with aconnect(work.url, compression=False, proxy=None) as websocket:
            return await exchange_in_loop(work, websocket.asend, websocket.areceive)

    return asyncio.run(main())


def websockets(work: Work) -> float:
    """The one in threads."""
    from websockets.sync.client import connect

    with connect(work.url, compression=None, proxy=None, max_size=None) as websocket:
        return exchange(work, websocket.send, websocket.recv)


def websockets_in_loop(work: Work) -> float:
    """The one on asyncio."""
    from websockets.asyncio.client import connect

    async def main() -> float:
        async with connect(work.url, compression=None, proxy=None, max_size=None) as websocket:
            return await exchange_in_loop(work, websocket.send, websocket.recv)

    return asyncio.run(main())


def websocket_client(work: Work) -> float:
    """The package `websocket-client`."""
    from websocket import create_connection

    websocket = create_connection(work.url)
    try:
        return exchange(work, websocket.send_binary, websocket.recv)
    finally:
        websocket.close()


def aiohttp(work: Work) -> float:
    """The client of a web framework."""
    import aiohttp

    async def main() -> float:
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(work.url, max_msg_size=0) as websocket,
        ):
            return await exchange_in_loop(work, websocket.send_bytes, websocket.receive)

    return asyncio.run(main())


def picows(work: Work) -> float:
    """Callbacks in C, no queue of messages."""
    from picows import WSListener, WSMsgType, ws_connect

    class Client(WSListener):
        def __init__(self) -> None:
            self.turn, self.before = 0, 0.0
            self.done = asyncio.get_running_loop().create_future()

        def on_ws_connected(self, transport: Any) -> None:
            for _ in range(work.flight):
                transport.send(WSMsgType.BINARY, message)

        def on_ws_frame(self, transport: Any, frame: Any) -> None:
            frame.get_payload_as_bytes()
            if self.turn == WARM_UP:
                self.before = time.process_time()
            self.turn += 1
            if self.turn == WARM_UP + work.messages:
                self.done.set_result(time.process_time() - self.before)
            elif not self.done.done():
                transport.send(WSMsgType.BINARY, message)

    message = work.message

    async def main() -> float:
        transport, client = await ws_connect(Client, work.url)
        cpu_s: float = await client.done
        transport.disconnect()
        return cpu_s

    return asyncio.run(main())


#: The name, the function, the package, and the rival of the goal.
CLIENTS: list[tuple[str, Callable[[Work], float], str, str]] = [
    ("dwebsocket, threads", ours, "dwebsocket", "websockets, threads"),
    ("dwebsocket, asyncio", ours_in_loop, "dwebsocket", "websockets, asyncio"),
    ("websockets, threads", websockets, "websockets", ""),
    ("websockets, asyncio", websockets_in_loop, "websockets", ""),
    ("websocket-client", websocket_client, "websocket", ""),
    ("aiohttp", aiohttp, "aiohttp", ""),
    ("picows, callbacks", picows, "picows", ""),
]


async def serve(port: int) -> None:
    """Be the server: send each message back."""
    from picows import WSListener, WSMsgType, ws_create_server

    class Echo(WSListener):
        def on_ws_frame(self, transport: Any, frame: Any) -> None:
            if frame.msg_type == WSMsgType.CLOSE:
                transport.disconnect()
            elif frame.msg_type == WSMsgType.PING:
                transport.send_pong(frame.get_payload_as_bytes())
            else:
                transport.send(frame.msg_type, frame.get_payload_as_bytes(), fin=frame.fin)

    server = await ws_create_server(lambda _: Echo(), "127.0.0.1", port)
    print("ready", flush=True)
    await server.serve_forever()


# -- the measurement -------------------------------------------------------------------------------


def start(own: dict[str, Any], core: int) -> subprocess.Popen[str]:
    """Start a process on one core."""
    packages = os.pathsep.join(filter(None, [str(build.ROOT / "python"), *sys.path[1:]]))
    return subprocess.Popen(
        ["taskset", "--cpu-list", str(core), sys.executable, __file__, "--as", json.dumps(own)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": packages},
    )


def rows(asked: argparse.Namespace) -> Iterator[Row]:
    """Measure all of them in turns; gives medians."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    server = start({"port": port}, asked.server_core)
    assert server.stdout is not None
    server.stdout.readline()
    try:
        for size, flight, messages in WORKS:
            messages = max(1, messages // asked.divide)
            work = Work(f"ws://127.0.0.1:{port}/", size, flight, messages)
            found: dict[str, list[float]] = {}
            for _ in range(asked.repetitions):
                for name, _, package, _ in CLIENTS:
                    if importlib.util.find_spec(package) is None:
                        print(f"{package} is not installed: left out", file=sys.stderr)
                        continue
                    client = start({"client": name, **asdict(work)}, asked.load_core)
                    output, _ = client.communicate(timeout=600)
                    if client.returncode:
                        raise machine.BenchError(f"{name} ended with {client.returncode}")
                    found.setdefault(name, []).append(messages / json.loads(output))
            for name, rates in found.items():
                yield Row(name, size, flight, statistics.median(rates))
    finally:
        server.terminate()
        server.wait()


def goal(row: Row, everything: list[Row]) -> str:
    """Say whether ours reaches the goal."""
    rival = next(rival for name, _, _, rival in CLIENTS if name == row.name)
    for other in everything:
        if (other.name, other.size, other.flight) == (rival, row.size, row.flight):
            ratio = row.messages_per_cpu_s / other.messages_per_cpu_s
            verdict = "holds" if ratio >= TIMES else "MISSED"
            return f"{ratio:.1f} times {rival}: {verdict} (≥ {TIMES})"
    return ""


def lines(everything: list[Row]) -> Iterator[str]:
    """Make the lines of the table."""
    yield "| bytes | in flight | client | messages a CPU second | goal |"
    yield "|---|---|---|---|---|"
    for row in everything:
        rate = f"{row.messages_per_cpu_s:,.0f}"
        what = f"| {row.size:,} | {row.flight} | {row.name} |"
        yield f"{what} {rate} | {goal(row, everything)} |"


def work(own: dict[str, Any]) -> None:
    """Be one of the processes."""
    if "port" in own:
        asyncio.run(serve(own["port"]))
        return
    name = own.pop("client")
    run = next(function for other, function, _, _ in CLIENTS if other == name)
    print(json.dumps(run(Work(**own))), flush=True)


def main() -> int:
    """Measure; 1 when a goal is missed, 2 when nothing could be measured."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--divide", type=int, default=1, help="send fewer messages, by this")
    parser.add_argument("--as", dest="own", type=json.loads, help=argparse.SUPPRESS)
    table.add_options(parser)
    asked = parser.parse_args()
    if asked.own is not None:
        work(asked.own)
        return 0
    try:
        machine.need_program("taskset", "it is part of util-linux")
        machine.check_cores((asked.server_core, asked.load_core))
        everything = list(rows(asked))
    except machine.BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    packages = ("websockets", "websocket-client", "aiohttp", "picows")
    versions = machine.versions(Path(sys.executable), packages)
    how = (
        "binary messages to an echo server and back, over one connection without compression; the "
        "client's CPU time, that of all its threads, medians of "
        f"{asked.repetitions} runs in turns. "
        + ", ".join(f"{name} {version}" for name, version in versions.items())
        + "."
    )
    found = {"versions": versions}
    found |= {"figures": [asdict(row) | {"goal": goal(row, everything)} for row in everything]}
    table.publish("The cost of a client's messages", how, lines(everything), found, asked.record)
    return int(any("MISSED" in goal(row, everything) for row in everything))


if __name__ == "__main__":
    sys.path.append(str(Path(__file__).resolve().parent))
    sys.exit(main())
