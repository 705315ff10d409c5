"""
The cost of coming back: ``python bench/recovery.py`` (``--help``).

A thousand clients that come back at once, beside the same ones that only reconnect; messages with
their numbers, in Redis, and as server-sent events, each beside the same without; many present
users; memory. Compared cases take turns on one server.
Servers run on one core; clients and Redis on the other one. Needs the packages of
tests/requirements.txt, redis-server, and a built engine beside the Python sources. Linux only.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import os
import signal
import statistics
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import build
import machine
import many_clients
import redis_server
from goals import RETURNING
from subject import Server, Subject
from work import Work

import groups
import table
from groups import Row

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

SIZE = 128
MISSED = 100
MEMBERS = 1000
# Messages one at a time, and so many at once: then several share a write.
BURSTS = (1, 16)
# Messages of a turn, of each burst.
MESSAGES = {1: 30, 16: 320}
PRESENT = 10_000
COME_AT_ONCE = 100
ASKED_TIMES = 21
WARM = 20
# Connections that are opened together where opening is not measured.
OPENING = 64
KEEPS = {"HISTORY": {"kept-*": {"size": 1000, "seconds": 3600}}}
IS_PRESENT = {"PRESENCE": {"here-*": {"grace": 5}}}
PATIENCE_S = 180


class Bench:
    """The machine's two cores, and the programs."""

    def __init__(self, asked: argparse.Namespace) -> None:
        self.asked = asked
        machine.raise_descriptor_limit(PRESENT + 500)
        # Children inherit it. Servers are moved.
        os.sched_setaffinity(0, {asked.load_core})

    @contextlib.contextmanager
    def backend(self, name: str, **own: object) -> Iterator[dict[str, str]]:
        """Run the server of a backend, if any; yields the settings of sites that share groups."""
        if name == "process":
            yield {"BENCH_GROUPS": json.dumps({"BACKEND": f"dwebsocket.groups.{name}", **own})}
            return
        with groups.backend(name, self.asked.load_core) as settings:
            found = json.loads(settings["BENCH_GROUPS"]) | own
            yield {**settings, "BENCH_GROUPS": json.dumps(found)}

    @contextlib.contextmanager
    def server(self, settings: Mapping[str, str]) -> Iterator[Server]:
        """Run a server of that site."""
        subject = Subject(
            "returning",
            "sync views, and groups",
            (),
            lambda descriptor, _: [
                *["gunicorn", "--bind", f"fd://{descriptor}", "--workers", "1"],
                *["--worker-class", "gthread", "--threads", "2", "--log-level", "warning"],
                *["--graceful-timeout", "3", "returning_site:application"],
            ],
            python_path=build.ROOT / "python",
            environment=settings,
        )
        program, work = Path(sys.executable), Work(MEMBERS)
        with Server(subject, program, core=self.asked.server_core, work=work) as server:
            yield server

    def turns(self, kinds: list[str]) -> Iterator[list[str]]:
        """Give the kinds in another order each turn."""
        for turn in range(self.asked.turns):
            shift = turn % len(kinds)
            yield kinds[shift:] + kinds[:shift]


def ratio(figure: str, ours: list[float], theirs: list[float], what: str, most: float) -> Row:
    """Make the row of a comparison: the ratio of medians, with the range of the turns."""
    each = sorted(mine / other for mine, other in zip(ours, theirs, strict=True))
    times = statistics.median(ours) / statistics.median(theirs)
    mine, other = statistics.median(ours), statistics.median(theirs)
    text = (
        f"{times:.2f}x ({mine:.2f} : {other:.2f} {figure}; turns {each[0]:.2f} to {each[-1]:.2f})"
    )
    return Row(what, text, f"≤ {most:g}x", times <= most)


def publish(server: Server, name: str, first: int, count: int) -> str:
    """Have the server publish numbered messages; returns the last one."""
    path = f"/publish/{name}?size={SIZE}&first={first}&count={count}"
    many_clients.ask(server.address, path)
    return text(first + count - 1)


def text(number: int) -> str:
    """Return the message of that number."""
    return f"{number:0{SIZE}}"


# --- coming back ----------------------------------------------------------------------------------


def recovery(bench: Bench) -> Iterator[Row]:
    """All come back to a new worker: for missed messages, and only to reconnect."""
    for name in ("local", "redis"):
        found: dict[str, list[tuple[float, float]]] = {"plain": [], "resumed": []}
        with bench.backend(name, **KEEPS) as settings, bench.server(settings) as server:
            for turn, order in enumerate(bench.turns(list(found))):
                at = many_clients.ask(server.address, "/position/kept-a")["position"]
                publish(server, "kept-a", turn * MISSED, MISSED)
                _reload(server)
                for kind in order:
                    found[kind].append(_come_back(server, kind, at, turn * MISSED))
        for what, key in (("until all are up to date", 0), ("CPU of the server", 1)):
            ours, theirs = ([one[key] for one in found[kind]] for kind in ("resumed", "plain"))
            row = f"{MEMBERS:,} come back for {MISSED} missed messages, {name}: {what}"
            yield ratio("s", ours, theirs, row, RETURNING["recovery"])


def _reload(server: Server) -> None:
    old = many_clients.ask(server.address, "/process")["pid"]
    os.kill(server.leader, signal.SIGHUP)
    give_up = time.monotonic() + PATIENCE_S
    while old in (pids := machine.session_pids(server.leader)) or len(pids) < len(server.pids):
        if time.monotonic() > give_up:
            raise machine.BenchError("the server does not reload")
        time.sleep(0.05)
    many_clients.ask(server.address, "/process")
    server.pids = machine.session_pids(server.leader)


def _come_back(server: Server, kind: str, at: str, first: int) -> tuple[float, float]:
    path, until = "/plain/plain", b""
    if kind == "resumed":
        path, until = f"/resumed/a?since=kept-a:{at}", b'"recovered":'
    with many_clients.Fleet(server.address) as warm:
        # The first connection of a worker loads modules: that is not measured.
        warm.open(path, WARM, until=until)
    with many_clients.Fleet(server.address) as fleet:
        before = machine.cpu_s(server.pids)
        seconds = fleet.open(path, MEMBERS, until=until)
        used = machine.cpu_s(server.pids) - before
        if kind == "resumed":
            expected = [text(number) for number in range(first, first + MISSED)]
            for came in fleet.take():
                if many_clients.numbered(many_clients.messages(came)) != expected:
                    raise machine.BenchError(f"a client got something else: {came[-300:]!r}")
    return seconds, used


# --- deliveries -----------------------------------------------------------------------------------


def numbered(bench: Bench) -> Iterator[Row]:
    """The same messages to members that get them with their numbers, and without."""
    for name in ("local", "process"):
        with bench.backend(name, **KEEPS) as settings, bench.server(settings) as server:
            kinds = {"plain": ("/plain/plain", "plain"), "numbered": ("/resumed/a", "kept-a")}
            for burst, found in _deliveries(bench, server, kinds):
                row = f"a numbered delivery, {MEMBERS:,} members, {_burst(burst)}, {name}: CPU"
                yield ratio("µs", found["numbered"], found["plain"], row, RETURNING["numbered"])


def streams(bench: Bench) -> Iterator[Row]:
    """Event streams beside WebSockets: a delivery, and memory."""
    with bench.backend("local") as settings, bench.server(settings) as server:
        kinds = {
            "WebSockets": ("/stream/sockets", "sockets"),
            "streams": (f"/stream/events?{many_clients.EVENTS}", "events"),
        }
        for burst, found in _deliveries(bench, server, kinds):
            row = f"a delivery to an event stream, {MEMBERS:,} members, {_burst(burst)}: CPU"
            yield ratio("µs", found["streams"], found["WebSockets"], row, RETURNING["stream"])
    memory_of: dict[str, list[float]] = {kind: [] for kind in kinds}
    for order in bench.turns(list(kinds)):
        for kind in order:
            # Pages that two servers have would be counted in parts.
            with bench.backend("local") as settings, bench.server(settings) as server:
                memory_of[kind].append(_pss_kib(server, kinds[kind][0], MEMBERS))
    ours, theirs = memory_of["streams"], memory_of["WebSockets"]
    row = f"memory of an event stream, {MEMBERS:,} of them: PSS"
    yield ratio("KiB", ours, theirs, row, RETURNING["stream memory"])


def _burst(burst: int) -> str:
    return "one message at a time" if burst == 1 else f"{burst} messages at once"


def _deliveries(
    bench: Bench, server: Server, kinds: Mapping[str, tuple[str, str]]
) -> Iterator[tuple[int, dict[str, list[float]]]]:
    """Give the CPU of deliveries in µs, by bursts; ``kinds`` are paths and groups of members."""
    with contextlib.ExitStack() as open_:
        fleets: dict[str, many_clients.Fleet] = {}
        for kind, (path, _) in kinds.items():
            fleets[kind] = open_.enter_context(many_clients.Fleet(server.address))
            fleets[kind].open(path, MEMBERS, at_once=OPENING)
            publish(server, kinds[kind][1], 0, 1)
            # Members join as their views begin.
            fleets[kind].read_for(1.0)
            fleets[kind].take()
        for burst in BURSTS:
            found: dict[str, list[float]] = {kind: [] for kind in kinds}
            for order in bench.turns(list(kinds)):
                for kind in order:
                    found[kind].append(_turn(server, fleets[kind], kinds[kind][1], burst))
            yield burst, found


def _turn(server: Server, fleet: many_clients.Fleet, name: str, burst: int) -> float:
    count = MESSAGES[burst]
    before = machine.cpu_s(server.pids)
    for first in range(1, 1 + count, burst):
        fleet.read_until(publish(server, name, first, burst).encode())
    used = machine.cpu_s(server.pids) - before
    everything = fleet.take()
    texts = many_clients.messages(everything[0])
    expected = [text(number) for number in range(1, 1 + count)]
    if (many_clients.numbered(texts) if texts[0].startswith("{") else texts) != expected:
        raise machine.BenchError(f"members of {name} got something else: {texts[:3]}")
    if any(came != everything[0] for came in everything):
        raise machine.BenchError(f"members of {name} got different messages")
    return used * 1e6 / (count * len(fleet))


def _pss_kib(server: Server, path: str, count: int) -> float:
    """Return the memory that each of so many connections takes."""
    with many_clients.Fleet(server.address) as warm:
        warm.open(path, WARM)
    before = machine.settled_pss_kib(server.pids)
    with many_clients.Fleet(server.address) as fleet:
        fleet.open(path, count, at_once=OPENING)
        fleet.read_for(1.0)
        return (machine.settled_pss_kib(server.pids) - before) / count


# --- Redis ----------------------------------------------------------------------------------------


def redis(bench: Bench) -> Iterator[Row]:
    """A publish to a group with a history, and to one without; another process has a member."""
    with bench.backend("redis", **KEEPS) as settings, bench.server(settings) as server:
        with many_clients.Fleet(server.address) as fleet:
            fleet.open("/plain/plain", 1)
            fleet.open("/resumed/a", 1, until=b'"recovered":')
            for how in ("one at a time", "pipelined"):
                turns = str(bench.asked.turns)
                found = groups.run_site("kept_publisher", how, turns, settings=settings)
                for key, what in (("wall_us", "wall time"), ("cpu_us", "CPU of Redis and client")):
                    ours, theirs = found["kept-a"][key], found["plain"][key]
                    row = f"a publish to a group with a history in Redis, {how}: {what}"
                    yield ratio("µs", ours, theirs, row, RETURNING["redis"])


# --- presence -------------------------------------------------------------------------------------


def presence(bench: Bench) -> Iterator[Row]:
    """One joins where many are, then some at once; asking for all of them."""
    for name in ("local", "redis"):
        module = importlib.import_module(f"dwebsocket.groups.{name}")
        if not module.Backend.keeps_presence:
            continue
        with bench.backend(name, **IS_PRESENT) as settings, bench.server(settings) as server:
            with many_clients.Fleet(server.address) as fleet:
                fleet.open("/present/a", PRESENT, at_once=OPENING)
                yield from _joins(bench, server, fleet, name)
                path = f"/members/here-a?times={ASKED_TIMES}"
                answer = many_clients.ask(server.address, path)
                most = RETURNING["members ms"]
                yield Row(
                    f"members() of {answer['count']:,} present users, {name}: median",
                    f"{answer['ms']:.2f} ms (CPU {answer['cpu_ms']:.2f} ms)",
                    f"< {most:g} ms of CPU",
                    answer["cpu_ms"] < most and answer["count"] >= PRESENT,
                )


def _joins(bench: Bench, server: Server, fleet: many_clients.Fleet, name: str) -> Iterator[Row]:
    # New users stay, so that none leaves meanwhile.
    with contextlib.ExitStack() as coming:
        for count in (1, COME_AT_ONCE):
            each = []
            for _ in range(bench.asked.turns):
                _until_quiet(fleet)
                fleet.take()
                before = machine.cpu_s(server.pids)
                coming.enter_context(many_clients.Fleet(server.address)).open("/present/a", count)
                _until_quiet(fleet)
                used = machine.cpu_s(server.pids) - before
                messages, size = _told(fleet.take(), count)
                each.append((messages, size, used * 1e6 / len(fleet)))
            messages, size, used = (statistics.median(values) for values in zip(*each, strict=True))
            most = 1 if count == 1 else count // 10
            yield Row(
                f"{count} come at once to {len(fleet):,} present users, {name}: each is told by",
                f"{messages:.0f} message(s), {size:.0f} B; CPU {used:.2f} µs a member",
                f"≤ {most}",
                messages <= most,
            )


def _told(everything: list[bytes], count: int) -> tuple[int, int]:
    """Return the number and bytes of the messages about new users that each member got."""
    if any(came != everything[0] for came in everything):
        raise machine.BenchError("members were told different things")
    texts = many_clients.messages(everything[0])
    joined = [json.loads(one).get("joined", []) for one in texts]
    told = sum(len(one) if isinstance(one, list) else 1 for one in joined)
    if told != count:
        raise machine.BenchError(f"{told} joins of {count} were told: {texts[:3]}")
    return len(texts), len(everything[0])


def _until_quiet(fleet: many_clients.Fleet) -> None:
    """Read until nothing has come for a second."""
    give_up = time.monotonic() + PATIENCE_S
    while fleet.read_for(1.0):
        if time.monotonic() > give_up:
            raise machine.BenchError("members are told something all the time")


# --- memory ---------------------------------------------------------------------------------------


def memory(bench: Bench) -> Iterator[Row]:
    """Memory of kept messages beside their own bytes, and of a present user beside a member."""
    for name in ("process", "local", "redis"):
        with bench.backend(name, **KEEPS) as settings:
            found = groups.run_site("kept_messages", settings=settings)
        of = found["message_bytes"]
        most = RETURNING["kept bytes"] + SIZE
        yield Row(
            f"a kept message of {SIZE} B, {name}: {found['where']}",
            f"{of:.0f} B",
            f"< {most:.0f} B",
            of < most,
        )
    each = {}
    for kind in ("still", "present"):
        with bench.backend("local", **IS_PRESENT) as settings, bench.server(settings) as server:
            each[kind] = _pss_kib(server, f"/{kind}/a", PRESENT // 10) * 1024
    more, most = each["present"] - each["still"], RETURNING["present bytes"]
    yield Row(
        "a present user beside a member of a group, local: PSS",
        f"{more:.0f} B more",
        f"< {most:.0f} B",
        more < most,
    )


PARTS: Mapping[str, Callable[[Bench], Iterator[Row]]] = {
    "recovery": recovery,
    "numbered": numbered,
    "redis": redis,
    "streams": streams,
    "presence": presence,
    "memory": memory,
}


def main() -> int:
    """Measure the chosen parts; 1 when a goal is missed, 2 when nothing could be measured."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    add = parser.add_argument
    add("--parts", default=",".join(PARTS), metavar="A,B")
    add("--turns", type=int, default=9, help="of each kind in a comparison")
    table.add_options(parser)
    asked = parser.parse_args()
    rows = []
    try:
        machine.need_program("taskset", "it is part of util-linux")
        machine.check_cores((asked.server_core, asked.load_core))
        bench = Bench(asked)
        for part in asked.parts.split(","):
            for row in PARTS[part](bench):
                rows.append(row)
                print(list(groups.lines(rows))[-1], file=sys.stderr, flush=True)
    except machine.BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    how = (
        f"servers on one core (gunicorn gthread, one worker), clients and Redis on the other one; "
        f"messages of {SIZE} B; medians of {asked.turns} turns, and their range."
    )
    found = {"turns": asked.turns, "versions": versions()}
    found |= {"figures": [asdict(row) for row in rows]}
    table.publish("The cost of coming back", how, groups.lines(rows), found, asked.record)
    return int(not all(row.holds for row in rows))


def versions() -> dict[str, str]:
    """Return those of what takes part."""
    found = machine.versions(Path(sys.executable), ("Django", "gunicorn"))
    return found | {"Redis": redis_server.version()}


if __name__ == "__main__":
    sys.exit(main())
