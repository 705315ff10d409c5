"""
The cost of rooms: ``python bench/rooms.py`` (``--help``).

A join, 1,000 rooms of one connection beside as many groups, an event that is passed on beside a
group's message, an event with its acknowledgement beside a handler's echo, heartbeats, and clients
that come back with 20 rooms each beside the same that only reconnect. Compared cases take turns on
one server. Servers run on one core, clients on the other one. Needs the packages of
tests/requirements.txt, and a built engine beside the Python sources. Linux only.
"""

from __future__ import annotations

import argparse
import contextlib
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
from many_clients import Fleet, ask
from recovery import ratio
from subject import Server, Subject
from work import Work

import table
from groups import Row

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOMS, CONNECTIONS = 1000, 10
JOIN_US, ROOM_BYTES, EVENT_TIMES, ACK_TIMES, BEAT_SHARE, RETURN_TIMES = 60, 100, 1.1, 1.2, 0.01, 2
MEMBERS, MESSAGES, SIZE = 1000, 30, 32
ECHOES = 2000
# The period is that of dwebsocket.js.
BEATING, BEAT_S, BEATS_S, REST_S = 10_000, 20, 60, 0.25
COMING, ROOMS_EACH = 1000, 20
OPENING = 64


class Bench:
    """The machine's two cores."""

    def __init__(self, asked: argparse.Namespace) -> None:
        self.asked = asked
        machine.raise_descriptor_limit(asked.beating + 500)
        os.sched_setaffinity(0, {asked.load_core})

    @contextlib.contextmanager
    def server(self, backend: str = "local") -> Iterator[Server]:
        """Run a server with rooms."""
        subject = Subject(
            "rooms",
            "rooms, and what they are compared with",
            (),
            lambda descriptor, _: [
                *["gunicorn", "--bind", f"fd://{descriptor}", "--workers", "1"],
                *["--worker-class", "gthread", "--threads", "2", "--log-level", "warning"],
                *["--graceful-timeout", "3", "rooms_site:application"],
            ],
            python_path=build.ROOT / "python",
            environment={"BENCH_GROUPS": json.dumps({"BACKEND": f"dwebsocket.groups.{backend}"})},
        )
        work, core = Work(MEMBERS), self.asked.server_core
        with Server(subject, Path(sys.executable), core=core, work=work) as server:
            with Fleet(server.address) as warm:
                # The first ones load modules.
                warm.open("/live", 1)
                warm.send(joins(5, 100))
                warm.read_until(b'"id":5,')
                warm.open("/echo", 1)
                warm.open("/grouped", 1)
            yield server


def joins(count: int, first: int = 0) -> list[str]:
    """Return the joins of so many rooms, whose ids begin with 1."""
    return [
        json.dumps({"id": number + 1, "join": f"room-{first + number}"}) for number in range(count)
    ]


def join(bench: Bench) -> Iterator[Row]:
    """The CPU of a join of a room whose `allow` asks nothing."""
    for backend in ("process", "local"):
        each = []
        with bench.server(backend) as server:
            for _ in range(bench.asked.turns):
                with Fleet(server.address) as page:
                    page.open("/live", 1)
                    before = machine.cpu_s(server.pids)
                    for first in range(0, ROOMS, 50):
                        page.send(joins(50, first))
                        page.read_until(b'"id":50,')
                        page.take()
                    each.append((machine.cpu_s(server.pids) - before) * 1e6 / ROOMS)
        yield limit(f"a join, {backend}: CPU", each, "µs", JOIN_US)


def memory(bench: Bench) -> Iterator[Row]:
    """
    The memory of a room beside that of a membership of a group.

    As many messages that lead to nothing come first: what their buffers leave behind is no room's.
    """

    def in_rooms(page: Fleet) -> None:
        page.send(joins(ROOMS))
        page.read_until(f'"id":{ROOMS},'.encode())

    def in_no_rooms(page: Fleet) -> None:
        page.send([each.replace("room-", "unknown-") for each in joins(ROOMS)])
        page.read_until(f'"id":{ROOMS},'.encode())

    def in_groups(page: Fleet) -> None:
        page.send([str(ROOMS)])
        page.read_until(f"joined {ROOMS}".encode())

    def in_no_groups(page: Fleet) -> None:
        page.send(["0"] * ROOMS + ["000"])
        page.read_until(b"joined 000")

    each: dict[str, list[float]] = {}
    cases = (("/live", in_no_rooms, in_rooms), ("/grouped", in_no_groups, in_groups))
    for path, talk, enter in cases:
        for _ in range(bench.asked.turns):
            with bench.server() as server, Fleet(server.address) as page:
                page.open(path, CONNECTIONS)
                talk(page)
                page.take()
                before = machine.settled_pss_kib(server.pids)
                enter(page)
                used = machine.settled_pss_kib(server.pids) - before
                each.setdefault(path, []).append(used * 1024 / (ROOMS * CONNECTIONS))
    pairs = zip(each["/live"], each["/grouped"], strict=True)
    more = [one - other for one, other in pairs]
    yield limit(f"{ROOMS:,} rooms of a connection: memory of each", each["/live"], "B", None)
    yield limit("the same beside a group's membership", more, "B more", ROOM_BYTES)


def limit(what: str, found: list[float], unit: str, most: float | None) -> Row:
    """Make the row of a figure that has a limit."""
    middle = statistics.median(found)
    text = f"{middle:,.3g} {unit} (turns {min(found):,.3g} to {max(found):,.3g})"
    return Row(what, text, "" if most is None else f"≤ {most:g}", most is None or middle <= most)


def event(bench: Bench) -> Iterator[Row]:
    """A delivery of an event that a member sends to the others, and of a message of the group."""
    data = "x" * SIZE
    passed = json.dumps({"to": "room-1", "event": "typing", "data": data})
    said = json.dumps({"to": "room-1", "event": "say", "data": data})
    each: dict[str, list[float]] = {"passed": [], "said": []}
    with bench.server() as server, Fleet(server.address) as members:
        members.open("/live", MEMBERS, at_once=OPENING)
        members.send(joins(1, 1))
        members.read_until(b'"id":1,')
        with Fleet(server.address) as sender:
            sender.open("/live", 1)
            sender.send(joins(1, 1))
            sender.read_until(b'"id":1,')
            for turn in range(bench.asked.turns):
                both = [("passed", passed), ("said", said)]
                for kind, text in both[:: 1 if turn % 2 else -1]:
                    members.take()
                    before = machine.cpu_s(server.pids)
                    for _ in range(MESSAGES):
                        sender.send([text])
                        members.read_until(data.encode())
                        members.take()
                    used = machine.cpu_s(server.pids) - before
                    each[kind].append(used * 1e6 / (MESSAGES * MEMBERS))
    row = f"an event that is passed on to {MEMBERS:,} members, beside a message: CPU of each"
    yield ratio("µs", each["passed"], each["said"], row, EVENT_TIMES)


def acknowledgement(bench: Bench) -> Iterator[Row]:
    """An event that `receive` acknowledges, and the echo of a handler."""
    text = json.dumps({"id": 7, "to": "room-1", "event": "ask", "data": "x" * SIZE})
    each: dict[str, list[float]] = {"/live": [], "/echo": []}
    with bench.server() as server, Fleet(server.address) as page, Fleet(server.address) as other:
        page.open("/live", 1)
        page.send(joins(1, 1))
        page.read_until(b'"id":1,')
        other.open("/echo", 1)
        for turn in range(bench.asked.turns):
            both = [("/live", page), ("/echo", other)]
            for path, client in both[:: 1 if turn % 2 else -1]:
                before = machine.cpu_s(server.pids)
                for _ in range(ECHOES):
                    client.take()
                    client.send([text])
                    client.read_until(b'"id"')
                each[path].append((machine.cpu_s(server.pids) - before) * 1e6 / ECHOES)
    row = "an event with its acknowledgement beside a handler's echo: CPU"
    yield ratio("µs", each["/live"], each["/echo"], row, ACK_TIMES)


def beat(bench: Bench) -> Iterator[Row]:
    """Heartbeats of idle connections."""
    count = bench.asked.beating
    each = []
    with bench.server() as server, Fleet(server.address) as fleet:
        fleet.open(f"/live?beat={BEAT_S}", count, at_once=OPENING)
        fleet.read_for(2 * BEAT_S, rests=REST_S)
        for _ in range(2):
            before = machine.cpu_s(server.pids)
            came = fleet.read_for(BEATS_S, rests=REST_S)
            each.append((machine.cpu_s(server.pids) - before) / BEATS_S * 100)
            if came < count * 2 * (BEATS_S // BEAT_S - 1):
                raise machine.BenchError(f"{came} bytes of heartbeats came")
    what = f"heartbeats every {BEAT_S} s of {count:,} idle connections: of a core"
    yield limit(what, each, "%", BEAT_SHARE * 100)


def reload(bench: Bench) -> Iterator[Row]:
    """All come back to a new worker: with their rooms, and without."""
    each: dict[str, list[tuple[float, float]]] = {"rooms": [], "plain": []}
    with bench.server() as server:
        for turn in range(bench.asked.turns):
            _reload(server)
            for kind in list(each)[:: 1 if turn % 2 else -1]:
                with Fleet(server.address) as warm:
                    warm.open("/live", 20)
                    warm.send(joins(1))
                    warm.read_until(b'"id":1,')
                with Fleet(server.address) as fleet:
                    began, before = time.monotonic(), machine.cpu_s(server.pids)
                    fleet.open("/live", COMING)
                    if kind == "rooms":
                        fleet.send(joins(ROOMS_EACH))
                        fleet.read_until(f'"id":{ROOMS_EACH},'.encode())
                    used = machine.cpu_s(server.pids) - before
                    each[kind].append((time.monotonic() - began, used))
    for key, what in ((0, "until all are up to date"), (1, "CPU of the server")):
        ours, theirs = ([one[key] for one in each[kind]] for kind in ("rooms", "plain"))
        row = f"{COMING:,} come back with {ROOMS_EACH} rooms each: {what}"
        yield ratio("s", ours, theirs, row, RETURN_TIMES)


def _reload(server: Server) -> None:
    old = ask(server.address, "/process")["pid"]
    os.kill(server.leader, signal.SIGHUP)
    give_up = time.monotonic() + many_clients.PATIENCE_S
    while old in (pids := machine.session_pids(server.leader)) or len(pids) < len(server.pids):
        if time.monotonic() > give_up:
            raise machine.BenchError("the server does not reload")
        time.sleep(0.05)
    ask(server.address, "/process")
    server.pids = machine.session_pids(server.leader)


PARTS: dict[str, Callable[[Bench], Iterator[Row]]] = {
    each.__name__: each for each in (join, memory, event, acknowledgement, beat, reload)
}


def main() -> int:
    """Measure the chosen parts; 1 when a goal is missed, 2 when nothing could be measured."""
    # Ended by the runner of a pipeline: as with Ctrl-C, no server may stay behind.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--beating", type=int, default=BEATING, metavar="N")
    table.add_options(parser)
    asked = parser.parse_args()
    try:
        machine.need_program("taskset", "it is part of util-linux")
        machine.check_cores((asked.server_core, asked.load_core))
        bench = Bench(asked)
        rows = []
        for part in asked.parts:
            for row in PARTS[part](bench):
                print(row, file=sys.stderr, flush=True)
                rows.append(row)
    except machine.BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    how = (
        "servers on one core (gunicorn gthread, one worker), clients on the other one; medians of "
        f"{asked.turns} turns, and their range."
    )
    lines = ["| | measured | goal | |", "|---|---|---|---|"]
    for row in rows:
        verdict = "" if not row.goal else "holds" if row.holds else "MISSED"
        lines.append(f"| {row.what} | {row.figure} | {row.goal} | {verdict} |")
    found = {"rows": [asdict(row) for row in rows]}
    table.publish("The cost of rooms", how, lines, found, asked.record)
    return int(not all(row.holds for row in rows))


if __name__ == "__main__":
    sys.exit(main())
