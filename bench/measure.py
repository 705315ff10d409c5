"""One measurement: a fresh server, the load generator, figures out."""

from __future__ import annotations

import json
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from machine import BenchError, settled_pss_kib
from subject import Server

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from subject import Subject

# Above this share of a core, the load generator is what limits the rate.
LOAD_LIMIT = 0.93
# Above this share, somebody else ran on the server's core or kept the load generator waiting.
DISTURBED = 0.05
# Messages of this size are echoed before memory is read a second time.
AWAKE_SIZE = 32
WARM_CONNECTIONS = 20
IDLE_STEP_S = 180


@dataclass(frozen=True)
class Work:
    """
    One row of the benchmark.

    ``size`` is in payload bytes, 0 for idle connections; ``kind`` is text or binary.
    """

    connections: int
    size: int = 0
    in_flight: int = 1
    kind: str = "text"

    @property
    def is_idle(self) -> bool:
        """Whether connections are only held."""
        return self.size == 0

    @property
    def name(self) -> str:
        """A name for tables and for choosing."""
        if self.is_idle:
            return f"idle {self.connections:,}"
        units = ((2**20, "MiB"), (2**10, "KiB"), (1, "B"))
        unit, word = next(pair for pair in units if self.size % pair[0] == 0)
        burst = f", {self.in_flight} in flight" if self.in_flight > 1 else ""
        return f"echo {self.size // unit} {word} {self.kind} x{self.connections}{burst}"


@dataclass(frozen=True)
class Bench:
    """How everything is measured in one run."""

    load: Path
    warm_up_s: float
    duration_s: float
    server_core: int
    load_core: int

    def measure(self, work: Work, subject: Subject, program: Path) -> dict[str, Any]:
        """
        Measure ``work`` on a fresh server of ``subject``; once more when it was disturbed.

        Returns:
            The figures; under ``failed`` what the server did wrong, else None.

        Raises:
            BenchError: Nothing could be measured.
        """
        figures = self._once(work, subject, program)
        if figures["disturbed"]:
            figures = self._once(work, subject, program)
        return figures

    def _once(self, work: Work, subject: Subject, program: Path) -> dict[str, Any]:
        room = work.connections + WARM_CONNECTIONS
        with Server(subject, program, core=self.server_core, connections=room) as server:
            figures = self._idle(work, server) if work.is_idle else self._echo(work, server)
            server.check_alive()
            return figures | {"server_said": server.said()}

    def _command(self, mode: str, server: Server, connections: int, size: int) -> list[str]:
        return [
            *["taskset", "--cpu-list", str(self.load_core), str(self.load), mode],
            *["--server", server.address, "--path", server.path],
            *["--connections", str(connections), "--size", str(size)],
        ]

    def _echo(self, work: Work, server: Server) -> dict[str, Any]:
        command = [
            *self._command("echo", server, work.connections, work.size),
            *["--kind", work.kind, "--in-flight", str(work.in_flight)],
            *["--warm-up", str(self.warm_up_s), "--duration", str(self.duration_s)],
            *["--server-core", str(self.server_core)],
            *["--server-pids", ",".join(map(str, server.pids))],
        ]
        raw = _run(command, server)
        failed = _describe_errors(raw)
        if raw["messages"] == 0:
            failed = failed or f"no message came back within {self.duration_s} s"
        messages = max(raw["messages"], 1)
        others = max(raw["core_busy_s"] - raw["server_cpu_s"], 0) / raw["seconds"]
        return {
            "messages_per_s": raw["messages"] / raw["seconds"],
            "server_cpu_us": raw["server_cpu_s"] * 1e6 / messages,
            "p50_us": raw["latency_us"]["p50"],
            "p99_us": raw["latency_us"]["p99"],
            "max_us": raw["latency_us"]["max"],
            "load_cpu_share": raw["load_cpu_share"],
            "load_wait_share": raw["load_wait_share"],
            "others_share": others,
            "limited_by_load": raw["load_cpu_share"] > LOAD_LIMIT,
            "disturbed": others > DISTURBED or raw["load_wait_share"] > DISTURBED,
            "failed": failed,
        }

    def _idle(self, work: Work, server: Server) -> dict[str, Any]:
        # What the first connections load once for all is not theirs.
        warm = self._command("echo", server, WARM_CONNECTIONS, AWAKE_SIZE)
        _run([*warm, "--warm-up", "0", "--duration", "0.2"], server)
        before = settled_pss_kib(server.pids)
        command = self._command("idle", server, work.connections, AWAKE_SIZE)
        with _conversation([*command, "--open-timeout", str(IDLE_STEP_S)], server) as say:
            ready = say("")
            idle = settled_pss_kib(server.pids)
            echoed = say(f"echo {AWAKE_SIZE}\n")
            awake = settled_pss_kib(server.pids)
            closed = say("close\n")
        failed = _describe_errors(closed)
        if echoed["missing"]:
            failed = failed or f"{echoed['missing']} connections did not answer"
        return {
            "idle_kib": (idle - before) / work.connections,
            "echoed_kib": (awake - before) / work.connections,
            "handshakes_per_s": ready["handshakes_per_s"],
            "disturbed": False,
            "limited_by_load": False,
            "failed": failed,
        }


def _run(command: list[str], server: Server) -> dict[str, Any]:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode not in (0, 1):
        raise BenchError(f"{server.name}: {done.stderr.strip()}\n{server.tail()}")
    return json.loads(done.stdout)


@contextmanager
def _conversation(command: list[str], server: Server) -> Iterator[Any]:
    """Run the load generator; yields a function that says a line and returns the answer."""
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as load:
        assert load.stdin is not None
        assert load.stdout is not None
        assert load.stderr is not None

        def say(line: str) -> dict[str, Any]:
            try:
                load.stdin.write(line)
                load.stdin.flush()
            except BrokenPipeError:
                pass
            answer = load.stdout.readline()
            if not answer:
                raise BenchError(f"{server.name}: {load.stderr.read().strip()}\n{server.tail()}")
            return json.loads(answer)

        try:
            yield say
        except BaseException:
            load.kill()
            raise


def _describe_errors(raw: dict[str, Any]) -> str | None:
    found = [f"{count} {name}" for name, count in raw["errors"].items() if count]
    return f"{', '.join(found)} (first: {raw['first_error']})" if found else None
