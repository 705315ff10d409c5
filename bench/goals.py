"""
The goals of the project as data, and whether a run reached them.

Each goal compares two figures of one run: the medians of ours and of a peer, row by row. It is
given as how many times better ours has to be, whichever way is better. Goals without a peer are
limits in the figure's own unit.

``python3 bench/goals.py record/FILE.json`` prints the table of a recorded run.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from work import CHAT_IN_FLIGHT, Work

MIB = 2**20
IDLE_CONNECTIONS = 5000
# Memory held after each has echoed 64 KiB (and then one short message, so that no view's variable
# keeps the large one) may differ by so much from the memory held before.
UNCHANGED = 1.05

ECHO = Work(50)
BURST = Work(50, in_flight=16)
ONE = Work(1)
KIB_64 = Work(50, 64 * 1024, kind="binary")
ECHO_MIB = Work(50, MIB, kind="binary")
MANY = Work(500)
BUSY = Work(200)
BUSY_AND_STOPPED = Work(200, stopped=50)
CHAT = Work(1000, in_flight=CHAT_IN_FLIGHT, mode="chat")
# As fast as it goes; the layers of Channels drop messages when more than a hundred wait.
GROUP = Work(1000, 128, 64, mode="chat")
GROUP_SLOWLY = Work(1000, 128, CHAT_IN_FLIGHT, mode="chat")
OPENING = Work(1000, mode="opening", middleware=True)
IDLE = Work(IDLE_CONNECTIONS, mode="idle")


@dataclass(frozen=True)
class Goal:
    """
    One comparison.

    ``ours`` and ``theirs`` are subjects. ``theirs_work`` and ``theirs_key`` are the row and the
    figure on the other side where they are not the same as on ours; without ``theirs``, ``factor``
    is the most that the figure may be.
    """

    work: Work
    ours: str
    key: str
    factor: float
    theirs: str | None = None
    theirs_work: Work | None = None
    theirs_key: str | None = None

    def pairs(self) -> list[tuple[Work, str]]:
        """Return the rows and subjects that have to be measured."""
        needed = [(self.work, self.ours)]
        if self.theirs is not None:
            needed.append((self.theirs_work or self.work, self.theirs))
        return needed


RATE, P50, P99 = "messages_per_s", "p50_us", "p99_us"
MORE_IS_BETTER = {RATE, "handshakes_per_s"}
# Where the load generator's core bounds the rate, the server's cost for a message says more.
COST = {RATE: "server_cpu_us", "handshakes_per_s": "server_cpu_us"}
TUNGSTENITES = ("tokio-tungstenite", "tokio-tungstenite-4k")
SYNC, ASYNC, GEVENT = "dwebsocket2", "dwebsocket2-async", "dwebsocket2-gevent"
GROUPS = "dwebsocket2-groups"
ON_UVICORN, PROTOCOL = "dwebsocket2-uvicorn", "dwebsocket2-protocol"
UVICORNS = ("asgi-uvicorn", "asgi-uvicorn-wsproto", "asgi-uvicorn-websockets-sansio")
# Ours as a view under gunicorn, and on uvicorn with our protocol; with them those of Channels.
CONSUMERS = {
    ("dwebsocket2-consumer", "dwebsocket2-consumer-protocol"): (
        *(5, ("channels-uvicorn", "channels-daphne")),
    ),
    ("dwebsocket2-sync-consumer", "dwebsocket2-sync-consumer-protocol"): (
        *(4, ("channels-sync-uvicorn", "channels-sync-daphne")),
    ),
}
CPU = "server_cpu_us"

GOALS = (
    Goal(ECHO, SYNC, RATE, 2.5, "original"),
    Goal(ECHO, SYNC, RATE, 7, "channels-uvicorn"),
    Goal(ECHO, SYNC, RATE, 12, "channels-sync-uvicorn"),
    *(Goal(ECHO, SYNC, RATE, 0.75, peer) for peer in TUNGSTENITES),
    Goal(ECHO, SYNC, P99, 1, "original"),
    Goal(BURST, SYNC, RATE, 10, "original"),
    Goal(BURST, SYNC, RATE, 2, "socketify"),
    Goal(BURST, SYNC, P99, 10_000),
    Goal(ECHO, ASYNC, RATE, 3, "websockets"),
    Goal(ECHO, ASYNC, RATE, 1.2, "picows"),
    Goal(ECHO, ASYNC, RATE, 8, "channels-uvicorn"),
    *(Goal(ECHO, ASYNC, RATE, 0.85, peer) for peer in TUNGSTENITES),
    Goal(ECHO, GEVENT, RATE, 2.5, "original-gevent"),
    Goal(ONE, SYNC, P50, 1 / 0.9, "original"),
    Goal(ONE, ASYNC, P50, 1 / 0.7, "websockets"),
    *(Goal(work, SYNC, RATE, 1, peer) for work in (KIB_64, ECHO_MIB) for peer in TUNGSTENITES),
    Goal(ECHO_MIB, SYNC, RATE, 200, "original"),
    Goal(CHAT, SYNC, RATE, 2, "original"),
    Goal(GROUP, GROUPS, RATE, 3.5, SYNC),
    Goal(GROUP, GROUPS, RATE, 1.3, "socketify"),
    *(
        Goal(GROUP, GROUPS, CPU, factor, layer, theirs_work=GROUP_SLOWLY)
        for layer, factor in (
            ("channels-uvicorn", 40),
            ("channels-redis", 60),
            ("channels-redis-pubsub", 60),
        )
    ),
    Goal(ECHO, ON_UVICORN, CPU, 1 / 1.1, ASYNC),
    Goal(ECHO, ON_UVICORN, CPU, 2.5, "asgi-uvicorn"),
    Goal(ECHO, ON_UVICORN, CPU, 1.5, "picows"),
    *(Goal(ECHO, PROTOCOL, RATE, 2.2, peer) for peer in UVICORNS),
    *(Goal(ECHO_MIB, PROTOCOL, RATE, 1.8, peer) for peer in UVICORNS),
    *(Goal(OPENING, PROTOCOL, "handshakes_per_s", 1.2, peer) for peer in UVICORNS),
    *(Goal(IDLE, PROTOCOL, "idle_kib", 2, peer) for peer in UVICORNS),
    *(
        goal
        for ours, (factor, peers) in CONSUMERS.items()
        for one in ours
        for peer in peers
        for goal in (
            Goal(ECHO, one, RATE, factor, peer),
            Goal(OPENING, one, "handshakes_per_s", 1, peer),
        )
    ),
    *(
        Goal(GROUP_SLOWLY, "dwebsocket2-consumer-protocol", CPU, factor, layer)
        for layer, factor in (("channels-redis", 10), ("channels-uvicorn", 5))
    ),
    Goal(IDLE, ASYNC, "idle_kib", 8),
    *(Goal(IDLE, one, "idle_kib", 6) for one in (ON_UVICORN, PROTOCOL)),
    Goal(IDLE, SYNC, "idle_kib", 30),
    Goal(IDLE, "dwebsocket2-engine", "idle_kib", 2.5),
    *(
        Goal(IDLE, one, "rested_kib", 1 / UNCHANGED, one, theirs_key="idle_kib")
        for one in (ASYNC, SYNC, "dwebsocket2-engine")
    ),
    Goal(OPENING, SYNC, "handshakes_per_s", 1.5, "original"),
    Goal(OPENING, SYNC, "handshakes_per_s", 1.5, "channels-uvicorn"),
    # Where both limits cannot hold: the cost of the same steps without any rule.
    Goal(OPENING, SYNC, "handshakes_per_s", 0.9, "floor"),
    Goal(MANY, SYNC, RATE, 2.5, "original"),
    Goal(MANY, SYNC, RATE, 10, "channels-sync-uvicorn"),
    Goal(BUSY_AND_STOPPED, SYNC, P99, 1 / 2, SYNC, theirs_work=BUSY),
)

#: Those of ``recovery.py``: ratios to the same without the feature, and limits.
RETURNING = {
    # Clients that come back for missed messages, beside those that only reconnect.
    "recovery": 2,
    "numbered": 1.15,
    "redis": 1.5,
    # A delivery as a server-sent event, beside one to a WebSocket; and the memory of a stream.
    "stream": 1.3,
    "stream memory": 1.05,
    "members ms": 10,
    # Bytes of a message that is kept beside its own, and of a present user beside a member.
    "kept bytes": 120,
    "present bytes": 2048,
}

NOT_MEASURED = "not measured"
WORDS = {
    RATE: "messages/s",
    P50: "p50, µs",
    P99: "p99, µs",
    CPU: "CPU, µs a message",
    "handshakes_per_s": "handshakes/s",
    "idle_kib": "KiB a connection",
    "rested_kib": "KiB a connection after 64 KiB",
}


def pairs() -> list[tuple[Work, str]]:
    """Return the rows and subjects that all goals need, each once, in their order."""
    return list(dict.fromkeys(pair for goal in GOALS for pair in goal.pairs()))


def markdown(figures: list[dict[str, Any]]) -> str:
    """Return the table of the goals; ``figures`` are those of a run."""
    rows = [_row(goal, figures) for goal in GOALS]
    measured = [row for row in rows if NOT_MEASURED not in row]
    lines = [
        "## Goals",
        "",
        "| row | ours | figure | beside | goal | reached | |",
        "|---|---|---|---|---|---|---|",
        *measured,
        "",
        f"{len(rows) - len(measured)} further goals compare what this run has not measured. "
        "Ratios of medians: how many times better ours is. `CPU`: the load generator's core was "
        "full, so the server's processor time a message is compared instead of the rate. "
        "Without a ratio, the goal is a limit.",
    ]
    return "\n".join(lines)


def _row(goal: Goal, figures: list[dict[str, Any]]) -> str:
    beside = goal.theirs or ""
    if goal.theirs_work is not None:
        other = f"{goal.theirs}, " if goal.theirs != goal.ours else ""
        beside = other + goal.theirs_work.name
    elif goal.theirs_key is not None:
        beside = f"{WORDS[goal.theirs_key]} before"
    if goal.theirs is None:
        wanted = f"≤ {goal.factor:,g}"
    else:
        wanted = f"≥ {goal.factor:.3g}x"
    reached, verdict = _judge(goal, figures)
    cells = (goal.work.name, goal.ours, WORDS[goal.key], beside, wanted, reached, verdict)
    return f"| {' | '.join(cells)} |"


def _judge(goal: Goal, figures: list[dict[str, Any]]) -> tuple[str, str]:
    ours = _found(figures, goal.work, goal.ours)
    theirs = _found(figures, goal.theirs_work or goal.work, goal.theirs) if goal.theirs else ours
    keys = (goal.key, goal.theirs_key or goal.key)
    for rows, name, key in zip((ours, theirs), (goal.ours, goal.theirs), keys, strict=True):
        if any(row["failed"] for row in rows):
            return f"{name} failed", "no"
        if not rows or any(key not in row for row in rows):
            return NOT_MEASURED, ""
    if goal.theirs is None:
        reached = median(row[goal.key] for row in ours)
        return _figure(reached), _verdict(reached <= goal.factor)
    (key, theirs_key), note = keys, ""
    if key in COST and any(row["limited_by_load"] for row in ours + theirs):
        key = theirs_key = COST[key]
        note = " `CPU`"
    mine, other = median(row[key] for row in ours), median(row[theirs_key] for row in theirs)
    ratio = mine / other if key in MORE_IS_BETTER else other / mine
    spread = f"{ratio:.3g}x{note} ({_figure(mine)} : {_figure(other)})"
    return spread, _verdict(ratio >= goal.factor)


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _verdict(reached: bool) -> str:
    return "yes" if reached else "no"


def _found(figures: list[dict[str, Any]], work: Work, subject: str) -> list[dict[str, Any]]:
    wanted = (work.name, subject)
    return [row for row in figures if (row["work"], row["subject"]) == wanted]


if __name__ == "__main__":
    print(markdown(json.loads(Path(sys.argv[1]).read_text())["figures"]))
