"""The subjects of the benchmark and the life of one server process."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from machine import BenchError, session_pids

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import Self

SITES = Path(__file__).parent / "servers"
START_S = 30
STOP_S = 15
BACKLOG = 4096
LAST_WORDS_S = 2
LOG_TAIL = 2000
# Threads beside those that connections hold: the ready request, connections being let go.
SPARE_THREADS = 64


@dataclass(frozen=True)
class Subject:
    """
    One server to be measured.

    ``command`` makes the arguments of ``python -m`` from the descriptor of the listening socket
    and the number of connections that will be open at once.
    """

    name: str
    says: str
    distributions: tuple[str, ...]
    command: Callable[[int, int], list[str]]


def _gunicorn(descriptor: int, site: str, *options: str) -> list[str]:
    return [
        *["gunicorn", "--bind", f"fd://{descriptor}", "--workers", "1"],
        *["--worker-class", "gthread", "--log-level", "warning", "--graceful-timeout", "3"],
        *[*options, f"{site}:application"],
    ]


def _dwebsocket2(descriptor: int, connections: int) -> list[str]:
    return _gunicorn(descriptor, "dwebsocket2_site", "--threads", "2")


def _thread_recv(descriptor: int, connections: int) -> list[str]:
    # A connection keeps its thread, so there must be one for each.
    threads = connections + SPARE_THREADS
    limits = ["--threads", str(threads), "--worker-connections", str(threads + SPARE_THREADS)]
    return _gunicorn(descriptor, "thread_recv_site", *limits)


def _channels_daphne(descriptor: int, connections: int) -> list[str]:
    return ["daphne", "--verbosity", "0", "--fd", str(descriptor), "channels_site:application"]


DWEBSOCKET2 = "dwebsocket2"
BASELINE = "channels-daphne"

SUBJECTS = (
    Subject(
        DWEBSOCKET2,
        "this checkout: sync view under gunicorn gthread, 1 worker, 2 threads",
        ("dwebsocket2", "Django", "gunicorn"),
        _dwebsocket2,
    ),
    Subject(
        "thread-recv",
        "the original's engine idea: a thread per socket in recv, frames in Python, "
        "under gunicorn gthread with a thread for each connection",
        ("Django", "gunicorn"),
        _thread_recv,
    ),
    Subject(
        BASELINE,
        "Django Channels on daphne: AsyncWebsocketConsumer, no channel layer",
        ("channels", "daphne", "Django", "Twisted", "autobahn"),
        _channels_daphne,
    ),
)


class Server:
    """A fresh server of one subject, pinned to one core; a context manager."""

    def __init__(self, subject: Subject, python: Path, *, core: int, connections: int) -> None:
        self.name = subject.name
        self.log = tempfile.TemporaryFile(mode="w+", errors="replace")
        # The socket is made here, alike for all: no port to guess, and a request sent too early
        # waits in the backlog. Accepted sockets inherit TCP_NODELAY from it.
        listener = socket.create_server(("127.0.0.1", 0), backlog=BACKLOG)
        with listener:
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.address = "{}:{}".format(*listener.getsockname())
            descriptor = listener.fileno()
            arguments = subject.command(descriptor, connections)
            self._process = subprocess.Popen(
                ["taskset", "--cpu-list", str(core), str(python), "-m", *arguments],
                cwd=SITES,
                env=os.environ | {"PYTHONUNBUFFERED": "1", "PYTHONDONTWRITEBYTECODE": "1"},
                stdin=subprocess.DEVNULL,
                stdout=self.log,
                stderr=subprocess.STDOUT,
                pass_fds=[descriptor],
                # A session of its own: so its processes are found again, whoever forked them.
                start_new_session=True,
            )
        try:
            self._wait_until_ready()
            self.pids = session_pids(self._process.pid)
        except BaseException:
            self.stop()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def check_alive(self) -> None:
        """Raise when a process of the server died or was replaced since it was ready."""
        if session_pids(self._process.pid) != self.pids:
            raise BenchError(f"{self.name}: its processes changed while measuring\n{self.tail()}")

    def said(self) -> str:
        """Return the end of what the server wrote so far."""
        self.log.seek(0)
        return self.log.read()[-LOG_TAIL:].strip()

    def tail(self) -> str:
        """Return the same for an error message, after giving the server time to explain itself."""
        try:
            status = f"exit status {self._process.wait(LAST_WORDS_S)}"
        except subprocess.TimeoutExpired:
            status = "still running"
        return self.said() or f"(the server wrote nothing; {status})"

    def stop(self) -> None:
        """End the server and all its processes."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            pass
        for pid in session_pids(self._process.pid):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self._process.wait(STOP_S)
        self.log.close()

    def _wait_until_ready(self) -> None:
        host, port = self.address.split(":")
        request = f"GET /ready HTTP/1.1\r\nHost: {self.address}\r\nConnection: close\r\n\r\n"
        answer = b""
        try:
            with socket.create_connection((host, int(port)), timeout=START_S) as client:
                client.sendall(request.encode())
                while b"\r\n" not in answer and (piece := client.recv(4096)):
                    answer += piece
        except OSError as error:
            raise BenchError(f"{self.name} does not start: {error}\n{self.tail()}") from error
        status = answer.partition(b"\r\n")[0]
        if b" 200 " not in status:
            raise BenchError(f"{self.name} answered {status!r} to /ready\n{self.tail()}")
