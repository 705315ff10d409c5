"""Whether clients saw what they were promised, and what is left in the server."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections import Counter, defaultdict
from typing import TYPE_CHECKING

from chaos_disasters import Disasters, memory_of
from chaos_marks import Marks
from chaos_model import Account, Attempt, Fact

from support.server import Server, descriptors, thread_count, thread_names
from support.waiting import eventually
from support.workers import connected_to_each

if TYPE_CHECKING:
    from chaos_backends import Subject

# The local backend's.
FOLDER = re.compile(rf"dwebsocket-{os.getuid()}-\d+-[0-9a-f]+")
MEETING = re.compile(rf"dwebsocket-{os.getuid()}-h\d+-[0-9a-f]+")


def assert_as_promised(
    logs: list[list[Fact]],
    attempts: list[list[Attempt]],
    subject: Subject,
    disasters: Disasters,
    tellings: int,
) -> None:
    """
    Each client saw what it was promised, and it was worth trying.

    A client is told of one loss in one group `tellings` times at most.
    """
    counts = disasters.counts()
    may_lose = any(counts[name] for name in subject.may_lose)
    account = Account()
    for log in logs:
        account.take(log, may_lose=may_lose)
    for attempt in attempts:
        account.compare(attempt, may_lose=may_lose)
    figures = {
        "disasters": counts,
        "messages published": sum(each[2] for attempt in attempts for each in attempt),
        "attempts that raised": sum(not each[2] for attempt in attempts for each in attempt),
        "messages delivered": account.messages,
        "came back, missed nothing": account.unharmed,
        "came back, got what they missed": account.recovered,
        "told of a loss": account.lost,
        "clients that recovered": account.clients,
        "recoveries by what happened before the end, and its code": causes(logs, disasters),
        "open by transport": Counter(
            fact[4] for log in logs for fact in log if fact[0] == "s" and fact[1] == "open"
        ),
    }
    print(json.dumps(figures, indent=1))
    memberships = sum(len({fact[1] for fact in log if fact[0] == "r"}) for log in logs)
    restarts = sum(counts[name] for name in subject.may_lose)
    assert account.lost <= memberships * restarts * tellings
    # One whose positions its backend has lost each time has nothing to get.
    assert account.clients >= len(logs) * 0.9
    assert account.recovered >= len(logs)
    assert account.messages >= 10 * len(logs)


def causes(logs: list[list[Fact]], disasters: Disasters) -> dict[str, Counter[str]]:
    """Count what became of clients that came back, or were told of a loss while they were open."""
    found: dict[str, Counter[str]] = defaultdict(Counter)
    for log in logs:
        known, told, cause = set(), set(), ""
        for fact in log:
            if fact[0] == "s" and fact[1] == "waiting":
                cause = f"{disasters.before_moment(fact[2])}, {fact[3]}"
                told.clear()
            elif fact[0] == "r":
                _, group, _, is_recovered, missed = fact
                outcome = "lost" if not is_recovered else "got missed" if missed else "missed none"
                if group in known:
                    found["while open" if group in told else cause][outcome] += 1
                known.add(group)
                told.add(group)
    return found


def assert_nothing_left(
    server: Server, disasters: Disasters, idle: tuple[int, int], groups: int
) -> None:
    """No error in the log, and nothing in the worker that has seen most of it."""
    log = server.stderr()
    for word in ("Traceback", "panicked", "Fatal"):
        assert word not in log, log[max(0, log.index(word) - 2000) :][:6000]
    whole = disasters.memory, memory_of(disasters.spared)
    print("KiB of a worker, and at the end:", whole)
    assert 0 < whole[1] < whole[0] * 1.3 + 20_000
    for pid in server.workers():
        server.at_rest(pid)
        print("a worker has", len(descriptors(pid)), "descriptors,", thread_count(pid), "threads")
        # Those of the group backend beside those that were there before: one for what is kept of
        # each group. Threads of views that have ended stay for a while, for the next ones.
        eventually(
            lambda pid=pid: len(descriptors(pid)) <= idle[0] + 26 + groups,
            what=f"{descriptors(pid)}",
        )
        eventually(lambda pid=pid: thread_count(pid) <= idle[1] + 15, what=f"{thread_names(pid)}")
    ours = {"stdout", "stderr", "db.sqlite3", "gunicorn.ctl"}
    # Beside the folder of the groups there is the one in which connections find a process to go to.
    found = [path for path in server.folder.iterdir() if path.name not in ours]
    files = [path for path in found if not MEETING.fullmatch(path.name)]
    assert [bool(FOLDER.fullmatch(path.name)) for path in files] in ([], [True]), files
    # One socket for each process that lives: those of the others are removed by one that starts.
    Marks(server, ["room-1"]).publish()
    sockets = [path for folder in files for path in folder.iterdir() if path.is_socket()]
    assert len(sockets) <= len(server.workers()) + 1, sockets


def idle_worker(server: Server) -> tuple[int, int]:
    """Give the numbers of descriptors and threads of a worker that has served."""
    with contextlib.ExitStack() as stack:
        connected_to_each(server, stack)
    found = []
    for pid in server.workers():
        server.at_rest(pid)
        found.append((len(descriptors(pid)), thread_count(pid)))
    return max(found)
