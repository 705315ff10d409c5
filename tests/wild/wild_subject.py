"""The project of this folder on one server, with the original or with ours."""

from __future__ import annotations

import contextlib
import dataclasses
import re
import time
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Any

from comparison import PREFIX
from support.clients import websocket
from support.server import (
    CACHE,
    EVENTLET_PATCHED,
    GEVENT_PATCHED,
    GUNICORN_EVENTLET,
    GUNICORN_GEVENT,
    GUNICORN_GTHREAD,
    GUNICORN_SYNC,
    RUNSERVER,
    UVICORN,
    Kind,
    Server,
)
from support.waiting import eventually
from support.wsgi_kinds import UWSGI_HTTP_SOCKET

if TYPE_CHECKING:
    from collections.abc import Iterator

    from websockets.sync.client import ClientConnection

    from support.raw_peer import Response

HERE = Path(__file__).resolve().parent
MODULE = "wildproject"

# As many threads as with the original: behind a project's own middleware each view takes one.
GTHREAD = dataclasses.replace(
    GUNICORN_GTHREAD,
    options=("--worker-class", "gthread", "--workers", "1", "--threads", "20"),
)
USUAL = (RUNSERVER, GTHREAD, GUNICORN_GEVENT)
FURTHER = (
    GUNICORN_SYNC,
    GEVENT_PATCHED,
    GUNICORN_EVENTLET,
    EVENTLET_PATCHED,
    UWSGI_HTTP_SOCKET,
    UVICORN,
)

# Where tests/setup puts dwebsocket 0.5.12, the last Django on which it runs, and servers of its
# time.
ORIGINAL = CACHE / "original"


def _original(name: str, *command: str, worker_title: str | None = None) -> Kind:
    """One of the servers with the original."""
    command = (str(ORIGINAL / "bin" / "python"), "-m", *command)
    return Kind(PREFIX + name, "original", command, folder=ORIGINAL, worker_title=worker_title)


def _original_gunicorn(worker: str, *options: str) -> Kind:
    """A worker in which as many WebSockets as a test opens leave room for pages."""
    return _original(
        f"gunicorn-{worker}",
        *("gunicorn", "--bind", "127.0.0.1:{port}", "--log-level", "warning"),
        *("--worker-class", worker, "--workers", "1", *options, "{module}.wsgi:application"),
        worker_title="gunicorn",
    )


ORIGINALS = (
    _original("runserver", "django", "runserver", "--noreload", "127.0.0.1:{port}"),
    _original_gunicorn("gthread", "--threads", "20"),
    _original_gunicorn("gevent"),
)

# A process that does nothing still wakes up now and then: hundredths of a second of CPU within the
# window.
WINDOW_S = 0.5
FEW_TICKS = 5

TRACEBACK = re.compile(r"^Traceback \(most recent call last\):\n(?:[ \t].*\n|\n)*(\S.*)$", re.M)


def ticks(pid: int) -> int:
    """Return the CPU time of a process in hundredths of a second."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


class Subject:
    """
    The project on a server.

    Args:
        kind: Which server.
        database: A migrated database, of which the server gets a copy.
    """

    def __init__(self, kind: Kind, database: Path) -> None:
        self.kind = kind
        self.is_original = kind in ORIGINALS
        # Ours may be on the path of this process; the original must not find it.
        env = {"PYTHONPATH": ""} if self.is_original else {}
        self.server = Server(
            kind, cwd=HERE, module=MODULE, env=env, database=database, probe="/running/"
        )

    def client(self, path: str, **options: Any) -> ClientConnection:
        """Connect as a browser does: without pings of its own, and not patient at the end."""
        options.setdefault("ping_interval", None)
        options.setdefault("close_timeout", 2)
        return websocket(self.server, path, **options)

    def get(self, path: str, **headers: str) -> Response:
        """Request a page."""
        return self.server.get(path, headers)

    def running(self) -> list[list[str]]:
        """Return the functions of the project on the stack of each thread and greenlet."""
        return self.get("/running/").json()["stacks"]

    @contextlib.contextmanager
    def scenario(self, *, stays: bool = False) -> Iterator[None]:
        """
        Assert that the block, whose clients have left at its end, leaves nothing behind.

        No view or helper thread goes on, the process is idle, and ours wrote no traceback. A server
        that does not pass is ended: the next test gets another one.

        Args:
            stays: The project's own code never ends; it only must not cost anything.
        """
        before = len(self.server.stderr())
        try:
            yield
            if not stays:
                eventually(lambda: not self.running(), 60, "all views and threads have ended")
            self._becomes_idle()
            if not self.is_original:
                assert TRACEBACK.findall(self.server.stderr()[before:]) == []
        except BaseException as exc:
            if self.server.is_running() and hasattr(exc, "add_note"):
                exc.add_note(f"stderr of {self.kind}:\n{self.server.stderr()[before:][-4000:]}")
            self.server.stop()
            raise
        if stays:
            self.server.stop()

    def _becomes_idle(self) -> None:
        """Wait until the process has used next to no time of a CPU for a while."""
        pid = self.server.worker
        samples: deque[tuple[float, int]] = deque()

        def is_idle() -> bool:
            now = time.monotonic()
            samples.append((now, ticks(pid)))
            while len(samples) > 1 and samples[1][0] <= now - WINDOW_S:
                samples.popleft()
            whole = samples[0][0] <= now - WINDOW_S
            return whole and samples[-1][1] - samples[0][1] < FEW_TICKS

        eventually(is_idle, 60, f"the process uses less than {FEW_TICKS} ticks in {WINDOW_S} s")
