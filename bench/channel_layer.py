"""
The cost of a channel layer: ``python bench/channel_layer.py`` (``--help``).

One process has 1,000 channels in one group, and a task that receives from each. Messages are sent
to the group, by this process or by another one; the next one when all channels have the last.
Measured is the CPU time of both processes (not that of Redis) for each message that a task has
received: with our layer, with that in memory of Channels, and with both of channels_redis. Needs
the packages of tests/requirements.txt, channels_redis (left out without it), redis-server, and a
built engine beside the Python sources. Linux only.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import build
import machine
import redis_server

import table

if TYPE_CHECKING:
    from collections.abc import Iterator

GROUP = "everyone"
# The goals, in CPU of a delivery.
TIMES_REDIS, TIMES_MEMORY = 10, 5
OURS = "dwebsocket.channels.ChannelLayer"
IN_MEMORY = "channels.layers.InMemoryChannelLayer"
REDIS = "channels_redis.core.RedisChannelLayer"
PUBSUB = "channels_redis.pubsub.RedisPubSubChannelLayer"
# Seconds until a message counts as lost.
PATIENCE_S = 60
READY = "ready"


@dataclass(frozen=True)
class Subject:
    """A layer, and the backend of groups below ours."""

    name: str
    layer: str
    backend: str = "local"

    @property
    def settings(self) -> dict[str, Any]:
        """Django's."""
        address = os.environ.get(redis_server.ADDRESS, "")
        groups = {"BACKEND": f"dwebsocket.groups.{self.backend}"}
        if self.backend == "redis":
            groups["LOCATION"] = address
        config = {"hosts": [address]} if self.layer in (REDIS, PUBSUB) else {}
        return {
            "SECRET_KEY": "of a bench",
            "WEBSOCKET_GROUPS": {"default": groups},
            "CHANNEL_LAYERS": {"default": {"BACKEND": self.layer, "CONFIG": config}},
        }


SUBJECTS = [
    Subject("dwebsocket, local", OURS),
    Subject("dwebsocket, redis", OURS, "redis"),
    Subject("Channels, in memory", IN_MEMORY),
    Subject("channels_redis", REDIS),
    Subject("channels_redis, pub/sub", PUBSUB),
]


@dataclass
class Row:
    """One layer: CPU time of a delivery in µs, and messages that did not come."""

    name: str
    sender: str
    cpu_us: float
    lost: int


# -- the processes ---------------------------------------------------------------------------------


def layer_of(settings: dict[str, Any]) -> Any:
    """Set Django up and give the layer."""
    import django
    from django.conf import settings as configuration

    configuration.configure(**settings)
    django.setup()
    from channels.layers import get_channel_layer

    return get_channel_layer()


async def send(layer: Any, number: int) -> None:
    """Send a message to the group."""
    await layer.group_send(GROUP, {"type": "chat.message", "message": f"message {number}"})


async def receive(layer: Any, channels: int, messages: int, *, sends: bool) -> None:
    """Receive messages of this process, or of another one that sends when it gets a line."""
    arrived = 0
    news = asyncio.Event()

    async def one(channel: str) -> None:
        nonlocal arrived
        while True:
            await layer.receive(channel)
            arrived += 1
            if arrived % channels == 0:
                news.set()

    names = [await layer.new_channel() for _ in range(channels)]
    for name in names:
        await layer.group_add(GROUP, name)
    tasks = [asyncio.ensure_future(one(name)) for name in names]

    async def turn(number: int) -> None:
        news.clear()
        if sends:
            await send(layer, number)
        else:
            print(number, flush=True)
        await asyncio.wait_for(news.wait(), PATIENCE_S)

    # Objects that are made once are made before.
    await turn(0)
    before = time.process_time()
    with contextlib.suppress(asyncio.TimeoutError):
        for number in range(1, messages + 1):
            await turn(number)
    cpu_s = time.process_time() - before
    deliveries = channels * messages
    print(json.dumps({"cpu_s": cpu_s, "lost": deliveries - (arrived - channels)}), flush=True)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def send_when_told(layer: Any) -> None:
    """Send a message for each line."""
    loop = asyncio.get_running_loop()
    before = 0.0
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        await send(layer, int(line))
        before = before or time.process_time()
    print(json.dumps({"cpu_s": time.process_time() - before}), flush=True)


# -- the measurement -------------------------------------------------------------------------------


def start(subject: Subject, role: str, asked: argparse.Namespace, core: int) -> Any:
    """Start a process on one core."""
    own = {"settings": subject.settings, "role": role}
    own |= {"channels": asked.channels, "messages": asked.messages}
    packages = os.pathsep.join(filter(None, [str(build.ROOT / "python"), *sys.path[1:]]))
    return subprocess.Popen(
        ["taskset", "--cpu-list", str(core), sys.executable, __file__, "--as", json.dumps(own)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": packages},
    )


def measure(subject: Subject, asked: argparse.Namespace, *, by_another: bool) -> Row:
    """Measure one layer once."""
    role = "receive" if by_another else "both"
    receiver = start(subject, role, asked, asked.server_core)
    sender = start(subject, "send", asked, asked.load_core) if by_another else None
    found: dict[str, Any] = {}
    for line in receiver.stdout:
        if line.startswith("{"):
            found = json.loads(line)
        elif sender is not None:
            sender.stdin.write(line)
            sender.stdin.flush()
    if receiver.wait() or not found:
        raise machine.BenchError(f"{subject.name}: the receiver ended with {receiver.returncode}")
    cpu_s = found["cpu_s"]
    if sender is not None:
        output, _ = sender.communicate()
        cpu_s += json.loads(output)["cpu_s"]
    deliveries = asked.channels * asked.messages - found["lost"]
    name = "another process" if by_another else "the same process"
    return Row(subject.name, name, cpu_s * 1e6 / max(deliveries, 1), found["lost"])


def rows(asked: argparse.Namespace) -> Iterator[Row]:
    """Measure all of them in turns; gives medians."""
    has_rival = importlib.util.find_spec("channels_redis") is not None
    if not has_rival:
        print("channels_redis is not installed: left out", file=sys.stderr)
    for by_another in (False, True):
        found: dict[str, list[Row]] = {}
        for _ in range(asked.repetitions):
            for subject in SUBJECTS:
                if subject.layer in (REDIS, PUBSUB) and not has_rival:
                    continue
                if by_another and subject.layer == IN_MEMORY:
                    continue
                found.setdefault(subject.name, []).append(
                    measure(subject, asked, by_another=by_another)
                )
        for name, those in found.items():
            cpu_us = statistics.median(row.cpu_us for row in those)
            yield Row(name, those[0].sender, cpu_us, sum(row.lost for row in those))


def goal(row: Row, everything: list[Row]) -> str:
    """Say whether our layer reaches the goals."""
    if not row.name.startswith("dwebsocket"):
        return ""
    parts = []
    for name, times in (("channels_redis", TIMES_REDIS), ("Channels, in memory", TIMES_MEMORY)):
        for other in everything:
            if (other.name, other.sender) == (name, row.sender):
                ratio = other.cpu_us / row.cpu_us
                verdict = "holds" if ratio >= times and not row.lost else "MISSED"
                parts.append(f"{ratio:.1f} times less than {name}: {verdict} (≥ {times})")
    return "; ".join(parts)


def lines(everything: list[Row]) -> Iterator[str]:
    """Make the lines of the table."""
    yield "| layer | sent by | CPU of a delivery, µs | lost | goal |"
    yield "|---|---|---|---|---|"
    for row in everything:
        cpu = f"{row.cpu_us:.1f}"
        yield f"| {row.name} | {row.sender} | {cpu} | {row.lost} | {goal(row, everything)} |"


def work(own: dict[str, Any]) -> None:
    """Be one of the processes."""
    layer = layer_of(own["settings"])
    if own["role"] == "send":
        asyncio.run(send_when_told(layer))
    else:
        sends = own["role"] == "both"
        asyncio.run(receive(layer, own["channels"], own["messages"], sends=sends))


def main() -> int:
    """Measure; 1 when a goal is missed, 2 when nothing could be measured."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument("--channels", type=int, default=1000)
    parser.add_argument("--messages", type=int, default=30)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--as", dest="own", type=json.loads, help=argparse.SUPPRESS)
    table.add_options(parser)
    asked = parser.parse_args()
    if asked.own is not None:
        work(asked.own)
        return 0
    try:
        machine.need_program("taskset", "it is part of util-linux")
        machine.check_cores((asked.server_core, asked.load_core))
        with redis_server.running(asked.load_core):
            everything = list(rows(asked))
    except machine.BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    how = (
        f"a group of {asked.channels:,} channels in one process with a task each; CPU of the "
        f"processes with a layer, of each of {asked.messages} messages to a channel, medians of "
        f"{asked.repetitions} runs in turns."
    )
    found = {"channels": asked.channels, "messages": asked.messages}
    found |= {"figures": [asdict(row) | {"goal": goal(row, everything)} for row in everything]}
    table.publish("The cost of a channel layer", how, lines(everything), found, asked.record)
    return int(any("MISSED" in goal(row, everything) or row.lost for row in everything))


if __name__ == "__main__":
    sys.path.append(str(Path(__file__).resolve().parent))
    sys.exit(main())
