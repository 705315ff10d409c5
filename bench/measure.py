"""One row: fresh servers, the load generator for one after the other, figures out."""

from __future__ import annotations

import json
import subprocess
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from machine import BenchError, settled_pss_kib
from subject import WARM_CONNECTIONS, Server

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from subject import Subject
    from work import Work

# Above this share of a core, the load generator limits the rate.
LOAD_LIMIT = 0.93
# Above this share, another process ran on the server's core or kept the load generator waiting.
DISTURBED = 0.05
# Figures of a subject that could not be measured.
UNMEASURED = {"disturbed": False, "limited_by_load": False, "server_said": ""}
# Messages of these sizes are echoed before memory is read again.
AWAKE_SIZE = 32
LARGE_SIZE = 64 * 1024
IDLE_STEP_S = 180
# Seconds of rest before memory is read: freed memory goes back to the system after a while.
REST_S = 6
# Answers that a window has for each connection at least, and how long it lasts at most for that.
BATCHES = 4
LONGEST_S = 30
# Handshakes come in rounds that last about a second each; as many windows make a steady figure.
OPENING_TIMES = 3


@dataclass(frozen=True)
class Bench:
    """How everything is measured in one run."""

    load: Path
    warm_up_s: float
    duration_s: float
    server_core: int
    load_core: int

    def measure(
        self, work: Work, subjects: list[Subject], programs: Mapping[str, Path], turns: int
    ) -> Iterator[tuple[int, Subject, dict[str, Any]]]:
        """
        Measure ``work`` on a fresh server of each subject, all of them up at once, in turns.

        So a slow moment of the machine slows all alike. Memory is measured once, one
        server after the other: pages that several have would be counted in parts.

        Yields:
            The number of the turn, the subject, and its figures of one window; under ``failed``
            the server's mistake, or the reason why there are none; else None.
        """
        if work.mode == "idle":
            for subject in subjects:
                yield from self._turns(work, [subject], programs, 1)
        else:
            yield from self._turns(work, subjects, programs, turns)

    def _turns(
        self, work: Work, subjects: list[Subject], programs: Mapping[str, Path], turns: int
    ) -> Iterator[tuple[int, Subject, dict[str, Any]]]:
        with ExitStack() as stack:
            servers = [(one, self._start(stack, work, one, programs[one.name])) for one in subjects]
            for turn in range(turns):
                shift = turn % len(servers)
                for subject, server in servers[shift:] + servers[:shift]:
                    yield turn, subject, self._window(work, server)

    def _start(
        self, stack: ExitStack, work: Work, subject: Subject, program: Path
    ) -> Server | BenchError:
        try:
            server = Server(subject, program, core=self.server_core, work=work)
        except BenchError as error:
            # One that cannot be measured is no reason to lose all the others.
            return error
        return stack.enter_context(server)

    def _window(self, work: Work, server: Server | BenchError) -> dict[str, Any]:
        """Measure one window; once more when it was disturbed."""
        if isinstance(server, BenchError):
            return UNMEASURED | {"failed": str(server)}
        try:
            figures = self._once(work, server)
            return self._once(work, server) if figures["disturbed"] else figures
        except BenchError as error:
            return UNMEASURED | {"failed": str(error)}

    def _once(self, work: Work, server: Server) -> dict[str, Any]:
        measure = {"idle": self._idle, "opening": self._opening}.get(work.mode, self._messages)
        figures = measure(work, server)
        server.check_alive()
        return figures | {"server_said": server.said()}

    def _command(self, mode: str, server: Server, connections: int, size: int) -> list[str]:
        return [
            *["taskset", "--cpu-list", str(self.load_core), str(self.load), mode],
            *["--server", server.address, "--path", server.path],
            *["--connections", str(connections), "--size", str(size)],
        ]

    def _watch(self, server: Server, duration_s: float) -> list[str]:
        return [
            *["--duration", str(duration_s), "--server-core", str(self.server_core)],
            *["--server-pids", ",".join(map(str, server.pids))],
        ]

    def _messages(self, work: Work, server: Server) -> dict[str, Any]:
        command = [
            *self._command(work.mode, server, work.connections, work.size),
            *["--kind", work.kind, "--in-flight", str(work.in_flight)],
            *["--warm-up", str(self.warm_up_s), *self._watch(server, self.duration_s)],
        ]
        if work.mode == "echo":
            # Where answers are few, those of all connections come together: one batch may fall
            # into a short window, or none.
            command += ["--at-least", str(BATCHES * work.connections), "--longest", str(LONGEST_S)]
            command += ["--stopped", str(work.stopped)]
        raw = _run(command, server)
        failed = _describe_errors(raw)
        if raw["messages"] == 0:
            failed = failed or f"no message came back within {raw['seconds']} s"
        return {
            "messages_per_s": raw["messages"] / raw["seconds"],
            "server_cpu_us": raw["server_cpu_s"] * 1e6 / max(raw["messages"], 1),
            "p50_us": raw["latency_us"]["p50"],
            "p99_us": raw["latency_us"]["p99"],
            "max_us": raw["latency_us"]["max"],
            **({"stopped": raw["stopped"]} if work.stopped else {}),
            **_circumstances(raw),
            "failed": failed,
        }

    def _opening(self, work: Work, server: Server) -> dict[str, Any]:
        command = self._command("opening", server, work.connections, work.size)
        raw = _run([*command, *self._watch(server, OPENING_TIMES * self.duration_s)], server)
        return {
            "handshakes_per_s": raw["opened"] / raw["seconds"],
            "server_cpu_us": raw["server_cpu_s"] * 1e6 / raw["opened"],
            **_circumstances(raw),
            "failed": _describe_errors(raw),
        }

    def _idle(self, work: Work, server: Server) -> dict[str, Any]:
        # Modules that the first connections load once for all are not part of their cost.
        warm = self._command("echo", server, WARM_CONNECTIONS, AWAKE_SIZE)
        _run([*warm, "--warm-up", "0", "--duration", "0.2"], server)
        before = settled_pss_kib(server.pids)
        command = self._command("idle", server, work.connections, AWAKE_SIZE)
        with _conversation([*command, "--open-timeout", str(IDLE_STEP_S)], server) as say:
            say("")
            idle = settled_pss_kib(server.pids)
            figures = {"idle_kib": (idle - before) / work.connections}
            missing = 0
            for size, name in (
                (AWAKE_SIZE, "echoed_kib"),
                (LARGE_SIZE, "echoed_large_kib"),
                # A view's own variable may hold the large one until the next message comes.
                (AWAKE_SIZE, "rested_kib"),
            ):
                missing += say(f"echo {size}\n")["missing"]
                if name == "rested_kib":
                    time.sleep(REST_S)
                now = settled_pss_kib(server.pids)
                figures[name] = (now - before) / work.connections
            closed = say("close\n")
        failed = _describe_errors(closed)
        if missing:
            failed = failed or f"{missing} answers did not come"
        return {
            **figures,
            "disturbed": False,
            "limited_by_load": False,
            "failed": failed,
        }


def _circumstances(raw: dict[str, Any]) -> dict[str, Any]:
    """Return how busy the load generator was, and how much others ran on the server's core."""
    others = max(raw["core_busy_s"] - raw["server_cpu_s"], 0) / raw["seconds"]
    return {
        "load_cpu_share": raw["load_cpu_share"],
        "load_wait_share": raw["load_wait_share"],
        "others_share": others,
        "limited_by_load": raw["load_cpu_share"] > LOAD_LIMIT,
        "disturbed": others > DISTURBED or raw["load_wait_share"] > DISTURBED,
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
