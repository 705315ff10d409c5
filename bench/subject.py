"""The subjects of the benchmark and the life of one server process."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import tempfile
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from machine import BenchError, session_pids

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from typing_extensions import Self
    from work import Work

SITES = Path(__file__).parent / "servers"
START_S = 30
RETRY_S = 0.05
STOP_S = 15
BACKLOG = 4096
LAST_WORDS_S = 2
LOG_TAIL = 2000
# Connections opened before the measurement, so that modules loaded for the first are not counted.
WARM_CONNECTIONS = 20
# Threads beside those that connections hold: the ready request, connections being let go.
SPARE_THREADS = 64


ECHOES = {"echo": "/echo", "idle": "/echo", "opening": "/echo"}
ALL = {**ECHOES, "chat": "/chat"}


@dataclass(frozen=True)
class Subject:
    """
    One server to be measured.

    ``command`` makes the arguments of ``python -m`` (or of the program itself, where there is no
    Python) from the descriptor of the listening socket and the number of connections that will be
    open at once.
    """

    name: str
    says: str
    distributions: tuple[str, ...]
    command: Callable[[int, int], list[str]]
    #: The path that clients ask for, for each mode of the load generator, and for an echo of
    #: binary messages where that is another path. A row whose mode is missing does not apply.
    paths: Mapping[str, str] = field(default_factory=lambda: ECHOES)
    runs_on: Literal["peers", "original", "rust"] = "peers"
    #: Where its packages are looked for first.
    python_path: Path | None = None
    #: A module that it needs, and the way to install it.
    needs: tuple[str, str] | None = None
    #: The status by which it says that it is up.
    ready: int = 200
    #: Additions to its environment.
    environment: Mapping[str, str] = field(default_factory=dict)

    def path(self, work: Work) -> str | None:
        """Return the path of clients in this row, or None if it is not for this subject."""
        if work.kind == "binary" and "binary" in self.paths:
            return self.paths["binary"]
        return self.paths.get(work.mode)


def _gunicorn(descriptor: int, site: str, *options: str, worker: str = "gthread") -> list[str]:
    return [
        *["gunicorn", "--bind", f"fd://{descriptor}", "--workers", "1"],
        *["--worker-class", worker, "--log-level", "warning", "--graceful-timeout", "3"],
        *[*options, f"{site}:application"],
    ]


def _gevent(site: str) -> Callable[[int, int], list[str]]:
    def command(descriptor: int, connections: int) -> list[str]:
        limit = str(connections + SPARE_THREADS)
        return _gunicorn(descriptor, site, "--worker-connections", limit, worker="gevent")

    return command


def _two_threads(site: str) -> Callable[[int, int], list[str]]:
    return lambda descriptor, connections: _gunicorn(descriptor, site, "--threads", "2")


def _thread_per_connection(site: str) -> Callable[[int, int], list[str]]:
    def command(descriptor: int, connections: int) -> list[str]:
        # A connection keeps its thread, so there must be one for each.
        threads = connections + SPARE_THREADS
        limits = ["--threads", str(threads), "--worker-connections", str(threads + SPARE_THREADS)]
        return _gunicorn(descriptor, site, *limits)

    return command


def _daphne(descriptor: int, connections: int) -> list[str]:
    return ["daphne", "--verbosity", "0", "--fd", str(descriptor), "channels_site:application"]


def _uvicorn(site: str, ws: str = "auto") -> Callable[[int, int], list[str]]:
    def command(descriptor: int, connections: int) -> list[str]:
        options = ["--fd", str(descriptor), "--log-level", "warning", "--lifespan", "off"]
        return ["uvicorn", *options, "--ws", ws, f"{site}:application"]

    return command


def _module(site: str) -> Callable[[int, int], list[str]]:
    return lambda descriptor, connections: [site, str(descriptor)]


def _limit(*read_buffer: str) -> Callable[[int, int], list[str]]:
    return lambda descriptor, connections: [str(descriptor), *read_buffer]


DWEBSOCKET2 = "dwebsocket2"
PROTOCOL = "dwebsocket.uvicorn:WebSocketProtocol"
BASELINE = "channels-daphne"
OURS = ("dwebsocket2", "Django", "gunicorn")

SUBJECTS = (
    Subject(
        DWEBSOCKET2,
        "this checkout: sync view under gunicorn gthread, 1 worker, 2 threads",
        OURS,
        _two_threads("dwebsocket2_site"),
        paths=ALL,
    ),
    Subject(
        f"{DWEBSOCKET2}-async",
        "this checkout: async view, the same server",
        OURS,
        _two_threads("dwebsocket2_site"),
        paths={**dict.fromkeys(ECHOES, "/aecho"), "chat": "/achat"},
    ),
    Subject(
        f"{DWEBSOCKET2}-groups",
        "this checkout: a sync view whose members are a group, of the local backend",
        OURS,
        _two_threads("dwebsocket2_site"),
        paths={"chat": "/grouped"},
    ),
    Subject(
        f"{DWEBSOCKET2}-gevent",
        "this checkout: sync view under gunicorn gevent, 1 worker",
        (*OURS, "gevent"),
        _gevent("dwebsocket2_site"),
        paths=ALL,
    ),
    Subject(
        f"{DWEBSOCKET2}-engine",
        "this checkout: the engine alone, no view and no Django request; for the memory it takes",
        OURS,
        _module("dwebsocket2_engine_site"),
        paths={"idle": "/"},
    ),
    Subject(
        f"{DWEBSOCKET2}-uvicorn",
        "this checkout: async view on uvicorn with uvloop, whose connections the engine takes over",
        (*OURS, "uvicorn", "uvloop"),
        _uvicorn("dwebsocket2_asgi_site"),
        paths={**dict.fromkeys(ECHOES, "/aecho"), "chat": "/achat"},
    ),
    Subject(
        f"{DWEBSOCKET2}-protocol",
        "this checkout: bare ASGI application on uvicorn with our protocol",
        (*OURS, "uvicorn", "uvloop"),
        _uvicorn("asgi_site", PROTOCOL),
    ),
    *(
        Subject(
            f"{DWEBSOCKET2}{kind}-consumer{where}",
            f"this checkout: {consumer} of Django Channels {says}; our layer for the chat",
            (*OURS, "channels", "uvicorn", "uvloop"),
            command,
            paths=paths,
            environment={"BENCH_LAYER": "dwebsocket"},
        )
        for kind, consumer, paths in (
            ("", "AsyncWebsocketConsumer", ALL),
            ("-sync", "WebsocketConsumer", dict.fromkeys(ECHOES, "/sync-echo")),
        )
        for where, says, command in (
            ("", "as a view, under gunicorn gthread", _two_threads("consumers_site")),
            ("-protocol", "on uvicorn with our protocol", _uvicorn("channels_site", PROTOCOL)),
        )
    ),
    Subject(
        "floor",
        "the least that gives a view on a thread a WebSocket: no rule checked, no setting read",
        OURS,
        _two_threads("floor_site"),
        paths={"opening": "/echo"},
    ),
    Subject(
        "original",
        "the original dwebsocket under gunicorn gthread with a thread for each connection",
        ("dwebsocket", "Django", "gunicorn"),
        _thread_per_connection("original_site"),
        paths={**ALL, "binary": "/binary"},
        runs_on="original",
    ),
    Subject(
        "original-gevent",
        "the original dwebsocket under gunicorn gevent",
        ("dwebsocket", "Django", "gunicorn", "gevent"),
        _gevent("original_site"),
        paths={**ALL, "binary": "/binary"},
        runs_on="original",
    ),
    Subject(
        "thread-recv",
        "the original's engine idea: a thread per socket in recv, frames in Python, "
        "under gunicorn gthread with a thread for each connection",
        ("Django", "gunicorn"),
        _thread_per_connection("thread_recv_site"),
    ),
    Subject(
        BASELINE,
        "Django Channels on daphne: AsyncWebsocketConsumer, in-memory channel layer for the chat",
        ("channels", "daphne", "Django", "Twisted", "autobahn"),
        _daphne,
        paths=ALL,
    ),
    Subject(
        "channels-uvicorn",
        "the same consumers on uvicorn",
        ("channels", "uvicorn", "Django", "uvloop", "websockets"),
        _uvicorn("channels_site"),
        paths=ALL,
    ),
    Subject(
        "channels-sync-uvicorn",
        "Django Channels on uvicorn: WebsocketConsumer, which is synchronous",
        ("channels", "uvicorn", "Django", "uvloop", "websockets"),
        _uvicorn("channels_site"),
        paths=dict.fromkeys(ECHOES, "/sync-echo"),
    ),
    Subject(
        "channels-sync-daphne",
        "the same consumer on daphne",
        ("channels", "daphne", "Django", "Twisted", "autobahn"),
        _daphne,
        paths=dict.fromkeys(ECHOES, "/sync-echo"),
    ),
    *(
        Subject(
            f"channels-{layer}",
            f"Django Channels on uvicorn, {says} of channels_redis; Redis on the load's core",
            ("channels", "channels-redis", "uvicorn", "Django", "uvloop", "redis"),
            _uvicorn("channels_site"),
            paths={"chat": "/chat"},
            needs=("channels_redis", "pip install channels-redis"),
            environment={"BENCH_LAYER": layer},
        )
        for layer, says in (
            ("redis", "RedisChannelLayer"),
            ("redis-pubsub", "RedisPubSubChannelLayer"),
        )
    ),
    Subject(
        "flask-sock",
        "flask-sock under gunicorn gthread with a thread for each connection",
        ("flask-sock", "Flask", "gunicorn", "simple-websocket"),
        _thread_per_connection("flask_sock_site"),
        paths=ALL,
    ),
    Subject(
        "asgi-uvicorn",
        "bare ASGI application on uvicorn",
        ("uvicorn", "uvloop", "websockets"),
        _uvicorn("asgi_site", "websockets"),
    ),
    *(
        Subject(
            f"asgi-uvicorn-{protocol}",
            f"the same, whose WebSockets are those of its {protocol} protocol",
            ("uvicorn", "uvloop", "websockets", "wsproto"),
            _uvicorn("asgi_site", protocol),
        )
        for protocol in ("wsproto", "websockets-sansio")
    ),
    Subject(
        "websockets",
        "its asyncio server",
        ("websockets",),
        _module("websockets_site"),
        paths=ALL,
    ),
    Subject(
        "aiohttp",
        "its server on uvloop",
        ("aiohttp", "uvloop"),
        _module("aiohttp_site"),
        paths=ALL,
    ),
    Subject(
        "picows",
        "its server on uvloop",
        ("picows", "uvloop"),
        _module("picows_site"),
        paths=ALL,
        ready=404,
    ),
    Subject(
        "socketify",
        "Python callbacks on µWebSockets (C++); its own publish for the chat",
        ("socketify",),
        _module("socketify_site"),
        paths=ALL,
        needs=("socketify", "it needs the system's libuv.so.1 (Debian: apt-get install libuv1)"),
    ),
    Subject(
        "socketify-loop",
        "the same, whose chat is a loop over its members in Python",
        ("socketify",),
        _module("socketify_site"),
        paths={"chat": "/loop"},
        needs=("socketify", "it needs the system's libuv.so.1 (Debian: apt-get install libuv1)"),
    ),
    Subject(
        "tokio-tungstenite",
        "no Python: one thread of tokio, read buffers as the library has them (128 KiB)",
        ("tokio-tungstenite", "tokio"),
        _limit(),
        paths=ALL,
        runs_on="rust",
    ),
    Subject(
        "tokio-tungstenite-4k",
        "the same with read buffers of 4 KiB",
        ("tokio-tungstenite", "tokio"),
        _limit("4096"),
        paths=ALL,
        runs_on="rust",
    ),
)


def compared(folder: Path) -> list[Subject]:
    """Return our subjects once more, with the built package in ``folder`` (its parent's place)."""
    return [
        replace(
            subject,
            name=subject.name.replace(DWEBSOCKET2, "compared"),
            says=f"the same with the package in {folder.name}",
            python_path=folder,
        )
        for subject in SUBJECTS
        if subject.name.startswith(DWEBSOCKET2)
    ]


class Server:
    """A fresh server of one subject, pinned to one core or some; a context manager."""

    def __init__(self, subject: Subject, program: Path, *, core: int | str, work: Work) -> None:
        """
        Start it.

        ``program`` is the interpreter, or the server itself where there is no Python; ``core`` one
        core, or a list as ``taskset`` has it.
        """
        self.name = subject.name
        self.path = subject.path(work)
        self._ready = subject.ready
        self.log = tempfile.TemporaryFile(mode="w+", errors="replace")
        # The socket is made here, alike for all: no port to guess, and a request sent too early
        # waits in the backlog. Accepted sockets inherit TCP_NODELAY from it.
        listener = socket.create_server(("127.0.0.1", 0), backlog=BACKLOG)
        with listener:
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.address = "{}:{}".format(*listener.getsockname())
            descriptor = listener.fileno()
            arguments = subject.command(
                descriptor, work.connections + work.stopped + WARM_CONNECTIONS
            )
            module = [] if subject.runs_on == "rust" else ["-m"]
            environment = {"PYTHONUNBUFFERED": "1", "PYTHONDONTWRITEBYTECODE": "1"}
            environment["BENCH_MODE"] = work.mode
            environment |= subject.environment
            if work.middleware:
                environment["BENCH_MIDDLEWARE"] = "1"
            if subject.python_path is not None:
                environment["PYTHONPATH"] = str(subject.python_path)
            self._process = subprocess.Popen(
                ["taskset", "--cpu-list", str(core), str(program), *module, *arguments],
                cwd=SITES,
                env=os.environ | environment,
                stdin=subprocess.DEVNULL,
                stdout=self.log,
                stderr=subprocess.STDOUT,
                pass_fds=[descriptor],
                # A session of its own: all its processes are found again, however deep the forks.
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

    @property
    def leader(self) -> int:
        """The number of the process that started the others."""
        return self._process.pid

    def check_alive(self) -> None:
        """Raise when a process of the server died or was replaced since it was ready."""
        if session_pids(self._process.pid) != self.pids:
            raise BenchError(f"{self.name}: its processes changed while measuring\n{self.tail()}")

    def said(self) -> str:
        """Return the end of the server's output so far."""
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
        give_up = time.monotonic() + START_S
        while True:
            try:
                answer = self._ask_whether_ready()
                break
            except OSError as error:
                # Some close the socket that they were given and open one of their own.
                starts = isinstance(error, ConnectionError) and self._process.poll() is None
                if not starts or time.monotonic() > give_up:
                    raise BenchError(
                        f"{self.name} does not start: {error}\n{self.tail()}"
                    ) from error
                time.sleep(RETRY_S)
        status = answer.partition(b"\r\n")[0]
        if b" %d " % self._ready not in status:
            raise BenchError(f"{self.name} answered {status!r} to /ready\n{self.tail()}")

    def _ask_whether_ready(self) -> bytes:
        host, port = self.address.split(":")
        request = f"GET /ready HTTP/1.1\r\nHost: {self.address}\r\nConnection: close\r\n\r\n"
        answer = b""
        with socket.create_connection((host, int(port)), timeout=START_S) as client:
            client.sendall(request.encode())
            while b"\r\n" not in answer and (piece := client.recv(4096)):
                answer += piece
        return answer
