"""What goes wrong: one disaster after the other, in a random order, each of them often."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from support.waiting import eventually, pause

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from chaos_backends import Subject
    from chaos_processes import Clients, Network

    from support.server import Server

# Of each round, how often what happens.
RELOAD, KILL = "workers are reloaded", "a worker is killed"
RESET, HANG, DELAY = "connections are reset", "connections hang", "connections are slow"
BLOCK, SLEEP = "WebSockets are blocked", "clients sleep"
ROUND = (RELOAD, KILL, KILL, RESET, RESET, HANG, DELAY, BLOCK, SLEEP, SLEEP)


class Disasters:
    """
    All that goes wrong with a site.

    Attributes:
        done: What has happened, in order: seconds since 1970, and name.
        spared: A worker that is not killed. Nothing is reloaded in the last third.
        memory: Its memory in KiB when the last third began.
    """

    def __init__(
        self,
        server: Server,
        network: Network,
        clients: Sequence[Clients],
        subject: Subject,
        seed: int,
    ) -> None:
        self._server = server
        self._network = network
        self._clients = clients
        self._subject = subject
        self._random = random.Random(seed)
        self._undo: list[tuple[float, Callable[[], None]]] = []
        self._asleep: set[int] = set()
        # The workers before the last reload.
        self._replaced: set[int] = set()
        self._workers = len(server.workers())
        # KiB of a worker that has served.
        self._loaded = min(map(memory_of, server.workers()))
        self.done: list[tuple[float, str]] = []
        self.spared = 0
        self.memory = 0

    def happen(self, seconds: float) -> None:
        """Let disasters happen for so long, and bring back what they took away."""
        began = time.monotonic()
        deck: list[str] = []
        rounds = 0
        # A busy machine is given the time for one round of all.
        while (passed := time.monotonic() - began) < seconds or rounds < 2:
            if passed > seconds * 2 / 3 and not self.spared:
                self._spare()
            if not deck:
                deck = [*ROUND, *self._subject.go]
                self._random.shuffle(deck)
                rounds += 1
                if passed > seconds:
                    break
            name = deck.pop()
            if name == RELOAD and self.spared:
                continue
            self.done.append((time.time(), name))
            self._cause(name)
            self._rest(self._random.uniform(0.5, 1.5))
        if not self.spared:
            self._spare()
        self._rest(0, all_of_it=True)
        self._all_workers()

    def cut_all(self) -> None:
        """Cut all connections."""
        self.done.append((time.time(), RESET))
        self._network.ask({"do": "reset", "share": 1})

    def counts(self) -> Counter[str]:
        """Give how often each happened."""
        return Counter(name for _, name in self.done)

    def before_moment(self, ms: float) -> str:
        """Give what happened last before a moment, in milliseconds since 1970."""
        names = [name for at, name in self.done if at * 1000 <= ms]
        return names[-1] if names else "nothing"

    def _cause(self, name: str) -> None:
        draw = self._random
        if name == RELOAD:
            self._all_workers()
            self._replaced = set(self._server.workers())
            self._server.send_signal(signal.SIGHUP)
        elif name == KILL:
            workers = [pid for pid in self._server.workers() if pid != self.spared]
            if workers:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(draw.choice(workers), signal.SIGKILL)
        elif name == RESET:
            self._network.ask({"do": "reset", "share": draw.choice([0.1, 0.4, 1])})
        elif name == HANG:
            ms = draw.randint(2000, 7000)
            self._network.ask({"do": "hang", "share": 0.3, "ms": ms})
        elif name == DELAY:
            ms = draw.randint(50, 1500)
            self._network.ask({"do": "delay", "share": 0.3, "ms": ms})
        elif name == BLOCK:
            # With connections that are open nothing would happen.
            self._network.ask({"do": "block", "ms": 2500})
            self._network.ask({"do": "reset", "share": 0.2})
        elif name == SLEEP:
            awake = [n for n in range(len(self._clients)) if n not in self._asleep]
            if awake:
                self._sleep(draw.choice(awake))
        else:
            back = self._subject.go[name]()
            self._later(draw.uniform(0.3, 2.5), back)
            # One of them at a time.
            self._rest(3)

    def _sleep(self, number: int) -> None:
        self._asleep.add(number)
        clients = self._clients[number]
        clients.sleep()

        def wake() -> None:
            clients.awake()
            self._asleep.discard(number)

        self._later(self._random.uniform(1, 8), wake)

    def _later(self, seconds: float, undo: Callable[[], None]) -> None:
        self._undo.append((time.monotonic() + seconds, undo))

    def _rest(self, seconds: float, *, all_of_it: bool = False) -> None:
        """Let time pass, and bring back what is due; with `all_of_it` wait for the last of it."""
        until = time.monotonic() + seconds
        while time.monotonic() < until or (all_of_it and self._undo):
            now = time.monotonic()
            due = [undo for at, undo in self._undo if at <= now]
            self._undo = [(at, undo) for at, undo in self._undo if at > now]
            for undo in due:
                undo()
            pause(0.05)

    def _all_workers(self) -> None:
        """Wait until the site is whole: a worker that has just begun does not know signals."""
        eventually(lambda: len(self._server.workers()) >= self._workers, what="all workers")

    def _spare(self) -> None:
        """Choose a worker that sees all that follows."""
        eventually(self._is_settled, 120, "the last reload is over")
        # One that has just begun would seem to grow: it has not even imported the site.
        loaded = eventually(self._loaded_workers, 120, "a worker has begun")
        self.spared = self._random.choice(loaded)
        self.memory = memory_of(self.spared)

    def _loaded_workers(self) -> list[int]:
        workers = self._server.workers()
        return [pid for pid in workers if memory_of(pid) > 0.8 * self._loaded]

    def _is_settled(self) -> bool:
        workers = self._server.workers()
        return len(workers) == self._workers and self._replaced.isdisjoint(workers)


def memory_of(pid: int) -> int:
    """Give the KiB that a process has in memory; none for one that has ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    lines = [line for line in status.splitlines() if line.startswith("VmRSS")]
    return int(lines[0].split()[1]) if lines else 0
