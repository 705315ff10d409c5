"""
Reloads under load: three in a row, while clients talk, are sent away and come back.

No client sees the end of its connection without a close frame, none is away for longer than its
backoff and a new process take, no old process is left, and the log has no traceback.
"""

from __future__ import annotations

import dataclasses
import signal
import time
from collections.abc import Callable

import pytest

from support.returning import crowd
from support.selection import later
from support.server import (
    ASGI,
    GUNICORN_ASGI,
    GUNICORN_GEVENT,
    GUNICORN_GTHREAD,
    GUNICORN_SYNC,
    UVICORN,
    Kind,
    Server,
    is_running,
)
from support.waiting import eventually
from support.wsgi_kinds import UWSGI_BEHIND_NGINX, UWSGI_GEVENT, UWSGI_HTTP_SOCKET, UWSGI_LAZY

pytestmark = pytest.mark.extended("reloads each kind of server, under load")

Own = Callable[..., Server]

# Seconds that a busy machine may take beyond the window, until a new process serves.
SLACK_S = 60
TOUCHED = "touched.py"

# The started process watches those that serve. It keeps an old one when the new one is not ready
# within 5 s, unless told otherwise: a busy machine may take longer.
UVICORN_WATCHED = dataclasses.replace(
    UVICORN,
    name="uvicorn-watched",
    options=(*UVICORN.options, "--timeout-worker-healthcheck", str(SLACK_S)),
    alone=False,
    worker_title="spawn_main",
)
GUNICORN_UVICORN = dataclasses.replace(
    GUNICORN_ASGI,
    name="gunicorn-uvicorn-worker",
    options=tuple(
        "uvicorn_worker.UvicornWorker" if option == "asgi" else option
        for option in GUNICORN_ASGI.options
    ),
)


def hang_up(server: Server) -> None:
    """As most service managers reload."""
    server.send_signal(signal.SIGHUP)


def touch(server: Server) -> None:
    """As a deploy that touches a file, or a developer who saves one."""
    (server.folder / TOUCHED).write_text(f"now = {time.time()}\n")


@dataclasses.dataclass(frozen=True)
class Case:
    """One way to reload, and how it is meant to be seen."""

    kind: Kind
    options: tuple[str, ...] = ()
    reload: Callable[[Server], None] = hang_up
    codes: frozenset[int] = frozenset({1012})
    clients: int = 100
    # The old processes serve on, or others do, while clients are sent away one by one.
    window: float = 0
    paths: tuple[str, ...] = ("/echo/",)
    # The log line at the end of the reload, where that comes after the last new process.
    says: str = ""
    # That of each process that serves, where a reload leaves out those that do not yet.
    serves: str = ""

    def __str__(self) -> str:
        how = [option.lstrip("-") for option in self.options if option.startswith("--")]
        return "-".join([self.kind.name, *how])


TWO = ("--workers", "2")
TOUCHED_FILE = "{folder}/" + TOUCHED
# Neither a process nor its application learns whether its end is a reload.
ENDS = frozenset({1001, 1012})
BOTH = ("/echo/", "/async-echo/")
# As uWSGI says it of a worker.
LOADED = "pid: {} (default app)"
CASES = [
    *later(Case(GUNICORN_SYNC, TWO, clients=300, window=2)),
    *later(Case(GUNICORN_GTHREAD, TWO, clients=300, window=2)),
    Case(GUNICORN_GEVENT, TWO, window=2),
    *later(Case(UWSGI_HTTP_SOCKET, ("--processes", "2"))),
    *later(Case(UWSGI_LAZY, ("--touch-reload", TOUCHED_FILE), touch, serves=LOADED)),
    *later(Case(UWSGI_BEHIND_NGINX)),
    *later(Case(UWSGI_GEVENT)),
    *later(
        Case(
            UWSGI_LAZY,
            ("--processes", "2", "--touch-chain-reload", TOUCHED_FILE),
            touch,
            window=2,
            says="chain reloading complete",
            serves=LOADED,
        )
    ),
    *later(Case(GUNICORN_ASGI, TWO, paths=BOTH)),
    *later(Case(GUNICORN_UVICORN, TWO, codes=ENDS, paths=BOTH)),
    *later(Case(UVICORN_WATCHED, TWO, clients=300, codes=ENDS, paths=BOTH)),
    *later(
        Case(
            UVICORN_WATCHED, ("--reload", "--reload-dir", "{folder}"), touch, codes=ENDS, paths=BOTH
        )
    ),
]


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=str)
def test_three_reloads_under_load(case: Case, own_server: Own) -> None:
    """Each client gets 1012, comes back in its backoff, and reaches a new process."""
    server = own_server(
        case.kind, options=case.options, settings={"WEBSOCKET_DRAIN": case.window or 2}
    )
    with crowd(server, case.clients, *case.paths) as clients:
        count = len(server.workers())
        for number in range(3):
            old = server.workers()
            eventually(
                lambda old=old: all(case.serves.format(pid) in server.stderr() for pid in old),
                SLACK_S,
                "all serve",
            )
            since = time.monotonic()
            case.reload(server)
            eventually(
                lambda old=old: not any(is_running(pid) for pid in old),
                len(old) * case.window + SLACK_S,
                "the old workers are gone",
            )
            eventually(lambda: len(server.workers()) == count, SLACK_S, "the new workers")
            eventually(
                lambda number=number: not case.says or server.stderr().count(case.says) > number,
                SLACK_S,
                case.says,
            )
            clients.all_talk()
            told = clients.told_since(since)
            assert len(told) >= case.clients
            if case.window:
                # Sent away one by one, however late a busy machine is.
                assert max(told) - min(told) > case.window / 4
        assert clients.codes() <= case.codes
    assert_calm(server)
    # New clients are served afterwards.
    assert server.get("/status/").json()["pid"] in server.workers()


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind", [*ASGI, GUNICORN_UVICORN, GUNICORN_GTHREAD, UWSGI_HTTP_SOCKET], ids=str
)
def test_end_under_load(kind: Kind, own_server: Own) -> None:
    """Clients that come back at once do not keep a server from ending."""
    server = own_server(kind)
    with crowd(server, 40, *(BOTH if kind.family == "asgi" else ("/echo/",))) as clients:
        server.send_signal(signal.SIGTERM)
        server.wait(SLACK_S)
    assert clients.codes() <= ({1001} if kind is GUNICORN_ASGI else ENDS)
    assert_calm(server)


def assert_calm(server: Server) -> None:
    """The log holds no traceback, and no process had to be killed."""
    log = server.stderr()
    for word in ("Traceback", "panicked", "Fatal", "SIGABRT", "SIGKILL", "NO MERCY", "DAMN"):
        assert word not in log, log
