"""
Each call of the system can fail, and nothing stays broken.

In a process that runs, the first call of a kind fails, then the second, the third … until a run has
no failure: once, or for two seconds. Meanwhile members of a room come, speak and go, or a process
dials, starts or ends. Each message arrives, or its sender or those who miss it are told; afterwards
all works within seconds, with no more descriptors and threads than before, and the log says why.

A sample by a seed, which is printed; all with `--every-server`, and each seventh of all with
ANOMALY_STEP=7. One call again:

    ANOMALY=scenario/fault/N/ms pytest tests/anomaly -k one_again
"""

from __future__ import annotations

import contextlib
import errno
import os
import random
import shutil
import signal
from typing import TYPE_CHECKING, Any

import pytest
from anomaly_members import Streaming
from anomaly_plan import FAULTS, Fault, Kind, Plan
from anomaly_scenarios import MESSAGES, Chat, End, Page, Start
from anomaly_subject import WELL_S, Subject

from support import postgres
from support import server as servers
from support.redis import Redis, settings
from support.server import GUNICORN_GTHREAD, RUNSERVER, Server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from anomaly_scenarios import Scenario

pytestmark = [
    pytest.mark.extended("calls of the system fail in many servers"),
    pytest.mark.skipif(not shutil.which("cc"), reason="needs a C compiler"),
    pytest.mark.slow,
]

# Twice as many as are sent at once: so each time older ones are dropped, and files are tidied up,
# and a late message of the round before drops none of the present one.
HISTORY = {"HISTORY": {"anomaly": {"size": 2 * MESSAGES, "seconds": 600}}}
LASTING_MS = 2000
# Of each scenario in the sample: so many once, and so many for two seconds.
ONCE, LASTING = 4, 1
STEP = int(os.environ.get("ANOMALY_STEP", "1"))
FORKED = ("--preload", "--threads", "4")
NETWORK = {Kind.THREAD, Kind.DESCRIPTOR, Kind.WATCH, Kind.CONNECT, Kind.SEND, Kind.RECEIVE}
ALL = set(Kind) - {Kind.FORK}

REDIS, POSTGRES = pytest.mark.needs("redis"), pytest.mark.needs("postgresql")
SCENARIOS: dict[str, tuple[set[Kind], tuple[pytest.MarkDecorator, ...]]] = {
    "local": (ALL, ()),
    "redis": (ALL, (REDIS,)),
    "redis-lost": (NETWORK, (REDIS,)),
    "postgres": (ALL, (POSTGRES,)),
    "fallback": (ALL, ()),
    "start": (ALL, ()),
    "dial": (NETWORK | {Kind.WAIT, Kind.MAP}, ()),
    "fork": ({Kind.FORK, Kind.THREAD}, ()),
    "reload": (ALL | {Kind.FORK}, ()),
    "shutdown": (ALL, (pytest.mark.every("starts a server for each call"),)),
}


class Stage:
    """
    A scenario with its processes, which are started anew when something is broken.

    Args:
        name: The scenario's.
        plan: What fails.
        database: The file of a project.
    """

    def __init__(self, name: str, plan: Plan, database: Path) -> None:
        self._name, self._plan, self._database = name, plan, database
        self._all = contextlib.ExitStack()
        self._stack = contextlib.ExitStack()
        self._subject: Subject | None = None
        # While a guest waits for an answer, no other member answers pings.
        options: dict[str, Any] = {
            "ROOT_URLCONF": "project.anomaly_views",
            "WEBSOCKET_PING_INTERVAL": 600,
        }
        self._redis: Redis | None = None
        if name.startswith("redis"):
            self._redis = self._all.enter_context(Redis())
            groups = settings(self._redis.url, **HISTORY)
        elif name == "postgres":
            entry = postgres.entry(self._all.enter_context(postgres.postgres()))
            options["DATABASES"] = {"default": entry}
            options["INSTALLED_APPS"] = [
                *("django.contrib.auth", "django.contrib.contenttypes"),
                *("django.contrib.sessions", "dwebsocket.groups.postgres"),
            ]
            postgres.migrate(options)
            groups = {"BACKEND": "dwebsocket.groups.postgres", "TIMEOUT": 20.0, **HISTORY}
        else:
            groups = HISTORY
        self._settings = {**options, "WEBSOCKET_GROUPS": {"default": groups}}
        self._other = self._server(RUNSERVER, self._all)

    def close(self) -> None:
        """End all of it."""
        self._stack.close()
        self._all.close()

    def calls(self, fault: Fault) -> int:
        """Give how many calls there are that may fail."""
        self._begin(fault, 0, 0)
        self._scenario.act()
        self._plan.end()
        if self._name == "shutdown":
            self._lower()
        else:
            self._scenario.works()
        return self._plan.counts()[0]

    def trial(self, fault: Fault, nth: int, ms: int) -> int:
        """Let calls fail, and look at what comes of it; give how many have failed."""
        try:
            self._begin(fault, nth, ms)
            has_worked = self._scenario.act()
            self._plan.outlast()
            failed = self._plan.end()
            if self._name == "shutdown":
                self._subject.server.wait(WELL_S)
            else:
                assert self._subject.server.is_running(), "the server has ended"
                self._scenario.works()
            self._subject.assert_log(fault, has_worked=has_worked, lasting=bool(ms))
            if self._scenario.stays:
                self._subject.assert_as_before()
            if self._name == "shutdown":
                self._lower()
        except BaseException as error:
            self._plan.end()
            log = self._subject.log() if self._subject else ""
            self._lower()
            if isinstance(error, (AssertionError, OSError)):
                again = f"ANOMALY={self._name}/{fault}/{nth}/{ms}"
                raise AssertionError(f"{again}: {error}\n{log[-3000:]}") from error
            raise
        return failed

    def assert_ends(self) -> None:
        """Fail unless the server ends at once when it is told to."""
        if self._subject is not None:
            self._scenario.close()
            self._subject.server.send_signal(signal.SIGTERM)
            self._subject.server.wait(WELL_S)

    def _begin(self, fault: Fault, nth: int, ms: int) -> None:
        if self._subject is None:
            self._raise()
        assert self._subject is not None
        self._subject.begin()
        self._subject.pid = self._scenario.begin()
        if isinstance(self._scenario, Chat):
            self._scenario.has_full_disk = fault.error == errno.ENOSPC
        self._plan.fail(self._subject.pid, fault, nth, ms)

    def _lower(self) -> None:
        self._stack.close()
        self._subject = None

    def _raise(self) -> None:
        kind, options = RUNSERVER, ()
        if self._name in ("start", "reload"):
            kind, options = GUNICORN_GTHREAD, FORKED
        server = self._server(kind, self._stack, options, **self._plan.env)
        self._scenario = self._scenario_of(server)
        self._stack.callback(self._scenario.close)
        self._subject = Subject(server)
        if self._scenario.stays:
            # All that starts once has started then.
            for _ in range(2):
                self._scenario.begin()
                self._scenario.act()
                self._scenario.works()
            self._subject.note()

    def _scenario_of(self, server: Server) -> Scenario:
        match self._name:
            case "fallback":
                return Chat(server, self._other, Streaming)
            case "redis-lost":
                return Chat(server, self._other, outage=self._cut)
            case "start":
                return Start(server, self._other)
            case "reload":
                return End(server, self._other, signal.SIGHUP)
            case "shutdown":
                return End(server, self._other)
            case "fork":
                return Page(server, "/anomaly/fork/")
            case "dial":
                url = self._other.url("/echo/")
                return Page(server, f"/anomaly/dial/?url={url}", f"/anomaly/async-dial/?url={url}")
        return Chat(server, self._other)

    def _cut(self) -> None:
        assert self._redis is not None
        for kind in ("normal", "pubsub"):
            self._redis.ask("CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes")

    def _server(
        self,
        kind: servers.Kind,
        stack: contextlib.ExitStack,
        options: tuple[str, ...] = (),
        **env: str,
    ) -> Server:
        if stack is not self._all:
            env["WEBSOCKET_RUNTIME_DIR"] = self._other.env["WEBSOCKET_RUNTIME_DIR"]
        # What it compiles is not written to the disk: those calls are none of the scenario's.
        env["PYTHONDONTWRITEBYTECODE"] = "1"
        server = Server(
            kind, options=options, settings=self._settings, env=env, database=self._database
        )
        return stack.enter_context(server)


@pytest.fixture
def stage(database: Path, tmp_path: Path) -> Iterator[Callable[[str], Stage]]:
    """Give the function that sets up a scenario."""
    with contextlib.ExitStack() as stack:
        plan = stack.enter_context(Plan(tmp_path))

        def set_up(name: str) -> Stage:
            made = Stage(name, plan, database)
            stack.callback(made.close)
            return made

        yield set_up


def faults_of(name: str) -> list[Fault]:
    """Give the faults that a scenario is tried with."""
    return [fault for fault in FAULTS if fault.kind in SCENARIOS[name][0]]


def each_scenario() -> list[Any]:
    """Give all scenarios, with the marks of their tests."""
    return [pytest.param(name, marks=marks) for name, (_, marks) in SCENARIOS.items()]


def each_fault() -> list[Any]:
    """Give all scenarios with all of their faults."""
    return [
        pytest.param(name, fault, marks=marks, id=f"{name}-{fault}")
        for name, (_, marks) in SCENARIOS.items()
        for fault in faults_of(name)
    ]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", each_scenario())
def test_sample(
    name: str, stage: Callable[[str], Stage], record_property: Callable[[str, object], None]
) -> None:
    """Some calls of some kinds, by a seed."""
    seed = random.randrange(2**32)
    print("seed", seed)
    record_property("seed", seed)
    draw = random.Random(seed)
    here = stage(name)
    faults = faults_of(name)
    for ms in [0] * ONCE + [LASTING_MS] * LASTING:
        fault = draw.choice(faults)
        if calls := here.calls(fault):
            here.trial(fault, draw.randint(1, calls), ms)
    here.assert_ends()


@pytest.mark.every("lets every call of each kind fail")
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("ms", [0, LASTING_MS], ids=["once", "lasting"])
@pytest.mark.parametrize(("name", "fault"), each_fault())
def test_every_call(
    name: str,
    fault: Fault,
    ms: int,
    stage: Callable[[str], Stage],
    record_property: Callable[[str, object], None],
) -> None:
    """The first call, the second, … until none fails."""
    here = stage(name)
    # Background work makes calls without end.
    most = here.calls(fault)
    tried, found = 0, []
    for nth in range(1, most + 1, STEP):
        try:
            if not here.trial(fault, nth, ms):
                break
        except AssertionError as error:
            found.append(str(error))
        tried += 1
    outcome = f"{name} {fault} {ms} ms: {most} calls, {tried} tried, {len(found)} found"
    record_property("anomalies", outcome)
    print(outcome)
    here.assert_ends()
    assert not found, "\n".join(found)


@pytest.mark.skipif("ANOMALY" not in os.environ, reason="ANOMALY names no call")
def test_one_again(stage: Callable[[str], Stage]) -> None:
    """The call that ANOMALY names."""
    name, of, nth, ms = os.environ["ANOMALY"].split("/")
    (fault,) = (fault for fault in FAULTS if str(fault) == of)
    here = stage(name)
    here.trial(fault, int(nth), int(ms))
    here.assert_ends()
