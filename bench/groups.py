"""
The cost of groups beside that of their parts: ``python bench/groups.py`` (``--help``).

The delay of a large group's last member and of other connections meanwhile, the way from a process
that publishes to a member of another one beside the same transport alone, publishes a second,
several workers beside one, and the memory of memberships. Servers run on one core; clients, Redis
and PostgreSQL on the other one. `run.py` compares fan-outs with other packages. Needs the packages
of tests/requirements.txt, redis-server, PostgreSQL, and a built engine beside the Python sources.
Linux only.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import build
import fairness
import machine
import redis_server
from fairness import percentile
from subject import SITES, Server, Subject
from work import Work

import table

sys.path.insert(0, str(SITES))

import groups_publisher

from support.postgres import postgres

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from typing_extensions import Self

BACKENDS = ("local", "redis", "postgres")
IN_FLIGHT = 64
SIZE = 128
TURNS = 5
# Messages of one turn.
PUBLISHES = 1000
# Messages of a rate.
MANY = 200_000
WORKERS, MEMBERS_EACH = 4, 4000
# Messages a second to all of them: too few for two to share a write.
APART = 15
# The load generator talks so long after its members are open, before it measures.
SETTLING_S = 1.5
ECHOES_S = 0.5
ECHO_PAUSE_S = 0.05
OPEN_S = 180
# Members that may take so long to be told, in ms.
LAST_MS = {1_000: 10, 10_000: 100}
PUBLISH_US = {"local": 200, "redis": 500, "postgres": 2000}
RATES = {"local": 100_000, "redis": 50_000}


@dataclass
class Row:
    """One figure, and its goal."""

    what: str
    figure: str
    goal: str
    holds: bool | None


class Bench:
    """The machine's two cores, and the programs."""

    def __init__(self, asked: argparse.Namespace) -> None:
        self.asked = asked
        self.load = build.load_generator()
        machine.raise_descriptor_limit(WORKERS * MEMBERS_EACH + 500)
        # Children inherit it. Servers are moved.
        os.sched_setaffinity(0, {asked.load_core})

    @contextlib.contextmanager
    def server(
        self, settings: Mapping[str, str], members: int, workers: int = 1
    ) -> Iterator[Server]:
        """Run a server with groups."""
        subject = Subject(
            "groups",
            "a sync view whose members are a group",
            (),
            lambda descriptor, _: [
                *["gunicorn", "--bind", f"fd://{descriptor}", "--workers", str(workers)],
                *["--worker-class", "gthread", "--threads", "2", "--log-level", "warning"],
                *["--graceful-timeout", "3", "dwebsocket2_site:application"],
            ],
            paths={"chat": "/grouped"},
            python_path=build.ROOT / "python",
            environment=settings,
        )
        work = Work(members, SIZE, mode="chat")
        program = Path(sys.executable)
        with Server(subject, program, core=self.asked.server_core, work=work) as server:
            yield server

    def chat(self, server: Server, members: int, *options: str, nice: int = 0) -> dict[str, Any]:
        """Have a group talk; gives the load generator's figures."""
        command = [
            *["nice", "-n", str(nice), str(self.load), "chat", "--server", server.address],
            *["--path", server.path, "--connections", str(members), "--size", str(SIZE)],
            *["--open-timeout", str(OPEN_S), "--duration", str(self.asked.duration)],
            *["--server-pids", ",".join(map(str, machine.session_pids(server.leader)))],
            *options,
        ]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode not in (0, 1):
            raise machine.BenchError(f"{done.stderr.strip()}\n{server.tail()}")
        figures: dict[str, Any] = json.loads(done.stdout)
        if any(figures["errors"].values()):
            raise machine.BenchError(f"{figures['errors']}: {figures['first_error']}")
        return figures

    def fastest(self, server: Server, members: int) -> float:
        """Return the greatest number of deliveries a second."""
        figures = self.chat(server, members, "--in-flight", str(IN_FLIGHT))
        rate: float = figures["messages"] / figures["seconds"]
        return rate


# --- the delay of the last member, and of others meanwhile ----------------------------------------


def delays(bench: Bench) -> Iterator[Row]:
    """Half of the greatest rate: how late is the last member, how late are echoes beside?"""
    for members, limit in LAST_MS.items():
        with bench.server({}, members) as server:
            fastest = bench.fastest(server, members)
            rate = str(fastest / 2 / members)
            last = bench.chat(server, members, "--rate", rate)["last_us"]
            p99 = last["p99"] / 1000
            yield Row(
                f"publish to the last of {members:,} members, at half of {fastest:,.0f}/s: p99",
                f"{p99:.2f} ms (median {last['p50'] / 1000:.2f})",
                f"< {limit} ms",
                p99 < limit,
            )
            yield from _echoes(bench, server, members, rate)


def _echoes(bench: Bench, server: Server, members: int, rate: str) -> Iterator[Row]:
    host, port = server.address.split(":")
    core = bench.asked.load_core
    pipe, clients = fairness._begin(
        fairness.echo, (host, int(port)), "/quiet-echo", ECHO_PAUSE_S, core
    )
    try:
        fairness._ask(pipe, ECHOES_S)
        without = percentile(fairness._ask(pipe, bench.asked.duration)) * 1000
        found: list[dict[str, Any] | machine.BenchError] = []

        def talk() -> None:
            try:
                # The echoes' clients come first where both share a core.
                found.append(bench.chat(server, members, "--rate", rate, nice=10))
            except machine.BenchError as error:
                found.append(error)

        talking = threading.Thread(target=talk)
        began = time.monotonic()
        talking.start()
        windows = []
        while talking.is_alive():
            windows.append((time.monotonic(), fairness._ask(pipe, ECHOES_S)))
        talking.join()
        (figures,) = found
        if isinstance(figures, machine.BenchError):
            raise figures
        pipe.send(0)
    finally:
        clients.kill()
        clients.join()
    # Neither while the members come nor while they go.
    first = began + figures["open_s"] + SETTLING_S
    last = first + figures["seconds"] - 2 * ECHOES_S
    beside = [each for at, window in windows if first <= at <= last for each in window]
    with_ms = percentile(beside) * 1000
    yield Row(
        f"echoes of {fairness.CLIENTS} others beside it: p99, without {without:.2f} ms",
        f"{with_ms:.2f} ms ({with_ms / without:.1f}x)",
        f"< {fairness.TIMES:.0f}x, or {fairness.MORE_MS:.0f} ms more",
        with_ms <= max(without * fairness.TIMES, without + fairness.MORE_MS),
    )


# --- from one process to another ------------------------------------------------------------------


@contextlib.contextmanager
def backend(name: str, core: int) -> Iterator[dict[str, str]]:
    """Run the server of a backend, if any; yields the settings of sites that share groups."""
    path = f"dwebsocket.groups.{name}"
    with (
        tempfile.TemporaryDirectory(prefix="bench-groups-") as folder,
        contextlib.ExitStack() as up,
    ):
        if name == "local":
            own = {"BACKEND": path, "OPTIONS": {"RUNTIME_DIR": folder}}
            yield {"BENCH_GROUPS": json.dumps(own), "BENCH_RAW_PLACE": f"{folder}/raw"}
        elif name == "redis":
            up.enter_context(redis_server.running(core))
            place = os.environ[redis_server.ADDRESS]
            own = {"BACKEND": path, "LOCATION": place}
            yield {"BENCH_GROUPS": json.dumps(own), "BENCH_RAW_PLACE": place}
        else:
            database = {
                "ENGINE": "django.db.backends.postgresql",
                "NAME": "postgres",
                "USER": "postgres",
                "HOST": str(up.enter_context(postgres())),
            }
            yield {
                "BENCH_GROUPS": json.dumps({"BACKEND": path}),
                "BENCH_DATABASE": json.dumps(database),
            }


def publishes(bench: Bench) -> Iterator[Row]:
    """A message at a time: from one process to a WebSocket of another, beside the way alone."""
    for name, limit in PUBLISH_US.items():
        with backend(name, bench.asked.load_core) as settings:
            settings["BENCH_RAW"] = name
            ours, alone = [], []
            with bench.server(settings, 10) as server, _transport(bench, settings) as port:
                for _ in range(TURNS):
                    ours += _publish("latency", server.address.split(":")[1], settings)
                    with _transport(bench, settings) as port:
                        alone += _publish("raw", port, settings)
        p50, raw = statistics.median(ours), statistics.median(alone)
        yield Row(
            f"publish to a member of another process, {name}: p50",
            f"{p50:.0f} µs (transport alone {raw:.0f}: {p50 / raw:.1f}x)",
            f"< {limit} µs, 2x",
            p50 < limit and p50 <= 2 * raw,
        )


@contextlib.contextmanager
def _transport(bench: Bench, settings: Mapping[str, str]) -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = str(probe.getsockname()[1])
    with contextlib.suppress(FileNotFoundError):
        os.unlink(settings.get("BENCH_RAW_PLACE", ""))
    peer = _site("transport_peer", port, settings=settings, core=bench.asked.server_core)
    try:
        assert peer.stdout is not None
        if peer.stdout.readline() != "ready\n":
            raise machine.BenchError("the other end of the transport does not start")
        yield port
    finally:
        peer.kill()
        peer.wait()


def _site(
    module: str, *arguments: str, settings: Mapping[str, str], core: int
) -> subprocess.Popen[str]:
    return subprocess.Popen(
        ["taskset", "--cpu-list", str(core), sys.executable, "-m", module, *arguments],
        cwd=SITES,
        env={**os.environ, **settings, "PYTHONPATH": str(build.ROOT / "python")},
        stdout=subprocess.PIPE,
        text=True,
    )


def run_site(module: str, *arguments: str, settings: Mapping[str, str]) -> Any:
    """Run a process on the clients' core to its end, and return the JSON that it prints."""
    (core,) = os.sched_getaffinity(0)
    site = _site(module, *arguments, settings=settings, core=core)
    answer, _ = site.communicate()
    if site.returncode:
        raise machine.BenchError(f"{module} ended with {site.returncode}")
    return json.loads(answer)


def _publish(how: str, port: str, settings: Mapping[str, str], count: int = PUBLISHES) -> Any:
    return run_site("groups_publisher", how, port, str(count), settings=settings)


def rates(bench: Bench) -> Iterator[Row]:
    """As many messages as one process publishes: each one reaches the engine of another."""
    for name, goal in RATES.items():
        with backend(name, bench.asked.load_core) as settings, bench.server(settings, 10) as server:
            with _Member(server, MANY) as member:
                pids = machine.session_pids(server.leader)
                before = _processor_s(pids)
                found = _publish("rate", "0", settings, MANY)
                member.wait()
                server_us = (_processor_s(pids) - before) * 1e6 / MANY
        ours_us = found["cpu_s"] * 1e6 / MANY
        # The publisher shares its core with the client, and with Redis.
        possible = 1e6 / max(ours_us, server_us)
        yield Row(
            f"publishes a second, {name}, one core each",
            f"{possible:,.0f} (CPU of a message: {ours_us:.1f} µs where it is published, "
            f"{server_us:.1f} µs where it arrives; seen {MANY / found['seconds']:,.0f}/s)",
            f"{goal:,}",
            possible >= goal,
        )


class _Member:
    """A client that counts its messages."""

    def __init__(self, server: Server, count: int) -> None:
        self._client = groups_publisher._member(int(server.address.split(":")[1]))
        # Before the messages one that wakes the connection to the other process.
        self._missing = count * groups_publisher.FRAME_BYTES + len("first") + 2
        self._reader = threading.Thread(target=self._read)

    def __enter__(self) -> Self:
        self._reader.start()
        return self

    def __exit__(self, *exception: object) -> None:
        with contextlib.suppress(OSError):
            self._client.shutdown(socket.SHUT_RDWR)
        self._reader.join()
        self._client.close()

    def _read(self) -> None:
        while self._missing > 0:
            found = len(self._client.recv(1 << 20))
            if not found:
                return
            self._missing -= found

    def wait(self) -> None:
        """Wait until all have come."""
        self._reader.join(60)
        if self._missing:
            raise machine.BenchError(f"{self._missing} bytes did not come")


def _processor_s(pids: list[int]) -> float:
    fields = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in pids]
    return sum(int(each[11]) + int(each[12]) for each in fields) / os.sysconf("SC_CLK_TCK")


# --- several workers ------------------------------------------------------------------------------


def workers(bench: Bench) -> Iterator[Row]:
    """One group over several processes: the cost of a delivery beside that of one process."""
    for name in ("local", "redis"):
        costs = []
        for count in (1, WORKERS):
            with (
                backend(name, bench.asked.load_core) as settings,
                bench.server(settings, count * MEMBERS_EACH, count) as server,
            ):
                figures = bench.chat(server, count * MEMBERS_EACH, "--rate", str(APART))
                costs.append(figures["server_cpu_s"] * 1e6 / figures["messages"])
        one, several = costs
        yield Row(
            f"a delivery over {WORKERS} workers with {MEMBERS_EACH:,} members each, {name}",
            f"{several:.2f} µs of CPU (one worker {one:.2f}: {several / one:.2f}x)",
            "1.2x",
            several <= 1.2 * one,
        )


# --- memory ---------------------------------------------------------------------------------------


def memory(bench: Bench) -> Iterator[Row]:
    """Memberships, and groups of one member."""
    found = run_site("memberships", settings={})
    of = found["membership_bytes"]
    yield Row("a membership", f"{of:.0f} B, {found['join_us']:.2f} µs", "< 150 B", of < 150)
    emptied = found["emptied_group_bytes"]
    yield Row("a group that all have left", f"{emptied:.0f} B", "0 B", emptied < 1)
    join = found["join_of_a_group_of_one_us"]
    yield Row(
        "100,000 groups of one member: a join",
        f"{join:.2f} µs ({found['group_of_one_bytes']:.0f} B with group and membership)",
        "< 20 µs",
        join < 20,
    )


PARTS: Mapping[str, Callable[[Bench], Iterator[Row]]] = {
    "delays": delays,
    "publishes": publishes,
    "rates": rates,
    "workers": workers,
    "memory": memory,
}


def lines(rows: list[Row]) -> Iterator[str]:
    """Make the lines of the table."""
    yield "| | measured | goal | |"
    yield "|---|---|---|---|"
    for row in rows:
        yield f"| {row.what} | {row.figure} | {row.goal} | {'holds' if row.holds else 'MISSED'} |"


def main() -> int:
    """Measure the chosen parts; 1 when a goal is missed."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    add = parser.add_argument
    add("--parts", default=",".join(PARTS), metavar="A,B")
    add("--duration", type=float, default=4.0, metavar="S", help="of each window")
    table.add_options(parser)
    asked = parser.parse_args()
    bench = Bench(asked)
    rows = []
    for part in asked.parts.split(","):
        for row in PARTS[part](bench):
            rows.append(row)
            print(list(lines(rows))[-1], file=sys.stderr, flush=True)
    how = (
        f"servers on one core (gunicorn gthread), clients, Redis and PostgreSQL on the other one; "
        f"messages of {SIZE} B in groups, of 32 B from one process to another; windows of "
        f"{asked.duration:.0f} s."
    )
    found = {"figures": [asdict(row) for row in rows]}
    table.publish("The cost of groups", how, lines(rows), found, asked.record)
    return int(not all(row.holds for row in rows))


if __name__ == "__main__":
    sys.exit(main())
