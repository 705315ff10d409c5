"""
Real server processes to test against.

A `Kind` says which server with which options; `Server` is one running process of that kind on a
port or a Unix socket of its own. Waiting is always for a condition: the server answers, the
process is gone, the descriptors are back.
"""

from __future__ import annotations

import contextlib
import dataclasses
import http.client
import itertools
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

from support.certificates import TlsAddress, client_context, server_file
from support.raw_peer import Address, RawPeer, Response
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from typing_extensions import Self

TESTS = Path(__file__).resolve().parent.parent
ROOT = TESTS.parent
CACHE = ROOT / ".cache"
LAUNCH = str(TESTS / "support" / "launch.py")

# The current one is in requirements.txt.
GUNICORN_OLDER = ("20.1.0", "21.2.0", "22.0.0", "23.0.0", "24.1.1", "25.3.0", "26.2.0")


@dataclasses.dataclass(frozen=True)
class Kind:
    """One way of serving a Django project."""

    name: str
    family: str
    options: tuple[str, ...] = ()
    unix: bool = False
    # Where tests/setup put the server's package; None: it is installed.
    folder: Path | None = None
    # The process that is started is the one that serves.
    alone: bool = False
    # A text in the command lines of those of its children that serve requests.
    worker_title: str | None = None
    # The abilities that it lacks, and why: tests marked `requires(ability)` are expected to fail.
    lacks: tuple[tuple[str, str], ...] = ()
    # A regular expression for the lines that it writes by itself about clients that break off.
    grumbles: str | None = None
    # Commands that it needs, beside the interpreter or on the path.
    programs: tuple[str, ...] = ()
    # The server itself encrypts.
    tls: bool = False
    # An HTTP proxy in front writes each request anew.
    proxied: bool = False

    def __str__(self) -> str:
        return self.name


def _gunicorn(
    worker: str, *, unix: bool = False, version: str | None = None, tls: bool = False
) -> Kind:
    options = ("--worker-class", worker, "--workers", "1")
    if worker == "gthread":
        options += ("--threads", "2")
    name = f"gunicorn-{worker}"
    name += "-unix" if unix else ""
    name += f"-{version}" if version else ""
    name += "-tls" if tls else ""
    folder = CACHE / "gunicorn" / version if version else None
    return Kind(name, "gunicorn", options, unix, folder, tls=tls)


RUNSERVER = Kind("runserver", "runserver", ("--noreload",))
RUNSERVER_RELOADING = Kind("runserver-reloading", "runserver")
RUNSERVER_NOTHREADING = Kind("runserver-nothreading", "runserver", ("--noreload", "--nothreading"))
GUNICORN_SYNC = _gunicorn("sync")
GUNICORN_SYNC_UNIX = _gunicorn("sync", unix=True)
GUNICORN_GTHREAD = _gunicorn("gthread")
GUNICORN_GTHREAD_UNIX = _gunicorn("gthread", unix=True)


def _asgi(name: str, command: str, *, alone: bool = False) -> Kind:
    command = f"{{python}} -m {command} {{module}}.asgi:application"
    return Kind(name, "asgi", tuple(command.split()), alone=alone)


_UVICORN = "uvicorn --port {port} --log-level warning --ws"
# Their own limits are 5 seconds, which a handshake on a busy machine may take.
_HYPERCORN = "hypercorn --log-level warning --keep-alive 60 -w 0"
_DAPHNE = "daphne -v 0 --websocket_connect_timeout 60"
UVICORN = _asgi("uvicorn-sansio", f"{_UVICORN} websockets-sansio --loop asyncio", alone=True)
GUNICORN_ASGI = _asgi(
    "gunicorn-asgi",
    "gunicorn --bind 127.0.0.1:{port} --log-level warning --worker-class asgi --workers 1",
)
ASGI = (
    UVICORN,
    _asgi("uvicorn-uvloop", f"{_UVICORN} websockets-sansio --loop uvloop", alone=True),
    _asgi("uvicorn-websockets", f"{_UVICORN} websockets", alone=True),
    _asgi("uvicorn-wsproto", f"{_UVICORN} wsproto", alone=True),
    _asgi("uvicorn-dwebsocket", f"{_UVICORN} dwebsocket.uvicorn:WebSocketProtocol", alone=True),
    _asgi("daphne", f"{_DAPHNE} -p {{port}}", alone=True),
    _asgi("hypercorn", f"{_HYPERCORN} -b 127.0.0.1:{{port}}", alone=True),
    _asgi("granian", "granian --interface asgi --port {port} --log-level warning"),
    GUNICORN_ASGI,
)


def _native(name: str, command: str, bind: str) -> tuple[Kind, Kind]:
    """Servers that give connections to the engine: at a Unix socket, and there behind nginx."""
    command = f"{{python}} -m {command} {bind}{{folder}}/socket {{module}}.asgi:application"
    nginx = ("{python}", LAUNCH, "nginx", "http", "{folder}", "{port}")
    unix = Kind(f"{name}-unix", "asgi", tuple(command.split()), unix=True, alone=True)
    proxied = Kind(
        f"{name}-nginx",
        "asgi",
        (*nginx, *unix.options),
        alone=True,
        programs=("nginx",),
        proxied=True,
    )
    if "--workers" in command:
        title = {"alone": False, "worker_title": "gunicorn"}
        return dataclasses.replace(unix, **title), dataclasses.replace(proxied, **title)
    return unix, proxied


NATIVE = (
    *_native("uvicorn", "uvicorn --log-level warning", "--uds "),
    *_native("hypercorn", _HYPERCORN, "-b unix:"),
    *_native("daphne", _DAPHNE, "-u "),
    *_native(
        "gunicorn-asgi", "gunicorn --log-level warning --worker-class asgi --workers 1", "-b unix:"
    ),
)

_CERTIFIED = "--{option}certfile {{certificate}} --{option}keyfile {{certificate}}"
_HTTP2 = (
    f"{{python}} {TESTS / 'support' / 'http2_proxy.py'} {{port}} {{folder}}/socket {{python}} -m"
)
# Servers whose connections the engine could take over, but for TLS or HTTP/2: they keep them.
KEPT = (
    dataclasses.replace(
        _asgi("uvicorn-tls", f"{_UVICORN} websockets-sansio {_CERTIFIED.format(option='ssl-')}"),
        alone=True,
        tls=True,
    ),
    dataclasses.replace(
        _asgi(
            "hypercorn-tls",
            f"{_HYPERCORN} -b 127.0.0.1:{{port}} {_CERTIFIED.format(option='')}",
        ),
        alone=True,
        tls=True,
    ),
    Kind(
        "hypercorn-http2",
        "asgi",
        tuple(
            f"{_HTTP2} {_HYPERCORN} -b unix:{{folder}}/socket {{module}}.asgi:application".split()
        ),
    ),
)

GUNICORN_SYNC_TLS = _gunicorn("sync", tls=True)
GUNICORN_GTHREAD_TLS = _gunicorn("gthread", tls=True)


def _encrypting(server: str) -> Kind:
    """A server that a script of ours starts with a certificate."""
    script = str(TESTS / "support" / "tls_server.py")
    command = ("{python}", script, server, "{module}", "{port}", "{certificate}")
    return Kind(f"{server}-tls", server, command, tls=True)


TLS = (
    GUNICORN_SYNC_TLS,
    GUNICORN_GTHREAD_TLS,
    _gunicorn("gevent", tls=True),
    _gunicorn("gevent_pywsgi", tls=True),
    _encrypting("gevent"),
    _encrypting("werkzeug"),
    _encrypting("cheroot"),
    _encrypting("eventlet"),
    _gunicorn("eventlet", version="25.3.0", tls=True),
)
MAIN = (RUNSERVER, GUNICORN_SYNC, GUNICORN_GTHREAD)
_ON_THREADS = (
    *MAIN,
    RUNSERVER_NOTHREADING,
    GUNICORN_SYNC_UNIX,
    GUNICORN_GTHREAD_UNIX,
    *TLS,
)
OLDER_GUNICORNS = tuple(
    _gunicorn(worker, version=version)
    for version in GUNICORN_OLDER
    for worker in ("sync", "gthread")
)

OLDER_GUNICORNS_TLS = tuple(
    _gunicorn(worker, version=version, tls=True)
    for version in GUNICORN_OLDER
    for worker in ("sync", "gthread")
)


def _green(library: str, how: str) -> Kind:
    """The library's own server, in a process that is monkey-patched or not."""
    script = str(TESTS / "support" / "green_server.py")
    command = ("{python}", script, library, how, "{module}", "{port}")
    return Kind(f"{library}-server-{how}", library, command)


GUNICORN_GEVENT = _gunicorn("gevent")
GUNICORN_GEVENT_PYWSGI = _gunicorn("gevent_pywsgi")
GEVENT_PATCHED = _green("gevent", "patched")
GEVENT_PLAIN = _green("gevent", "plain")
# gunicorn dropped the worker with version 26; it needs a recent version for a recent eventlet.
GUNICORN_EVENTLET = _gunicorn("eventlet", version="25.3.0")
EVENTLET_PATCHED = _green("eventlet", "patched")
EVENTLET_PLAIN = _green("eventlet", "plain")
GREEN = (
    GUNICORN_GEVENT,
    GUNICORN_GEVENT_PYWSGI,
    GEVENT_PATCHED,
    GEVENT_PLAIN,
    GUNICORN_EVENTLET,
    EVENTLET_PATCHED,
    EVENTLET_PLAIN,
)
OLDER_GREEN = tuple(
    _gunicorn(worker, version=version)
    for version in GUNICORN_OLDER
    for worker in ("gevent", "gevent_pywsgi", "eventlet")
    # gunicorn 20 cannot import a recent eventlet.
    if worker != "eventlet" or version[:2] in ("21", "22", "23", "24")
)

SERVERS = (*_ON_THREADS, *GREEN)


def _blocks_of_ports() -> list[int]:
    """
    Return where blocks of a thousand ports begin that the kernel gives to no client.

    A client's socket on such a port could take it between our choosing it and the server's binding
    it, or while a server restarts.
    """
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    blocks = list(range(2000, lowest - 999, 1000))[-20:]
    # Where clients may have every port, the risk is smaller than that of other services' ports.
    return blocks or list(range(10_000, 30_000, 1000))


# Each test run has a block of its own (some may be under way at once), each of its workers an
# eighth.
_run = os.environ.get("PYTEST_XDIST_TESTRUNUID", str(os.getpid()))
_worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
_blocks = _blocks_of_ports()
_first_port = _blocks[zlib.crc32(_run.encode()) % len(_blocks)] + _worker % 8 * 125
_ports = itertools.cycle(range(_first_port, _first_port + 125))
# Browsers refuse these, which belong to other protocols (https://fetch.spec.whatwg.org/#port-blocking).
_REFUSED_BY_BROWSERS = frozenset(
    {2049, 3659, 4045, 4190, 5060, 5061, 6000, 6566, *range(6665, 6670), 6679, 6697, 10080}
)


def free_port() -> int:
    """Return a TCP port of 127.0.0.1 that is not in use."""
    for port in itertools.islice(_ports, 125):
        if port in _REFUSED_BY_BROWSERS:
            continue
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise RuntimeError("no free port")


class _UnixHTTPConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def children_of(pid: int) -> list[int]:
    """Return the pids of a process's children."""
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
    except OSError:
        return []
    found: list[int] = []
    for task in tasks:
        with contextlib.suppress(OSError):
            found += [int(child) for child in (task / "children").read_text().split()]
    return found


def is_running(pid: int) -> bool:
    """Whether a process exists and is not a zombie."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


def descriptors(pid: int) -> list[str]:
    """Return the targets of the process's descriptors, sorted."""
    found = []
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            found.append(str(entry.readlink()))
    return sorted(found)


def command_line(pid: int) -> str:
    """Return a process's arguments, or the title that it gave itself; empty once it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    except OSError:
        return ""


def thread_count(pid: int) -> int:
    """Return the number of operating system threads of a process."""
    return len(list(Path(f"/proc/{pid}/task").iterdir()))


def thread_names(pid: int) -> list[str]:
    """Return the operating system's names of a process's threads, sorted."""
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError):
            found.append((task / "comm").read_text().strip())
    return sorted(found)


# For `env`: what views do at the end of their process has as much time as a busy machine needs.
TIME_TO_END = {"PROJECT_TIME_TO_END": "20"}


class Server:
    """
    A running server process; use as a context manager.

    Args:
        kind: Which server.
        options: Further command line options.
        settings: Values that replace those of the project's settings module (JSON types).
        env: Further environment variables.
        cwd: Folder of the Django project; the test project when None.
        module: The project's package (`<module>.settings`, `<module>.wsgi`).
        probe: Path that answers a plain GET once the server is up.
        prefix: Arguments in front of its command.
    """

    def __init__(
        self,
        kind: Kind,
        *,
        options: tuple[str, ...] = (),
        settings: Mapping[str, object] | None = None,
        env: Mapping[str, str] | None = None,
        database: Path | None = None,
        cwd: Path | None = None,
        module: str = "project",
        probe: str = "/status/",
        prefix: Sequence[str] = (),
    ) -> None:
        self.kind = kind
        self.options = options
        self.prefix = prefix
        self.cwd = cwd or TESTS
        self.module = module
        self.probe = probe
        self.folder = Path(tempfile.mkdtemp(prefix="dws-"))
        self.out = self.folder / "stdout"
        self.err = self.folder / "stderr"
        self.database = self.folder / "db.sqlite3"
        if database is not None:
            shutil.copy(database, self.database)
        self.env = {
            **os.environ,
            "DJANGO_SETTINGS_MODULE": f"{module}.settings",
            "PROJECT_SETTINGS": json.dumps(dict(settings or {})),
            "PROJECT_DB": str(self.database),
            # Its processes share groups with each other, and with none of another server.
            "WEBSOCKET_RUNTIME_DIR": str(self.folder),
            # The control socket of gunicorn would be in a folder of the user: the same for all.
            "XDG_RUNTIME_DIR": str(self.folder),
            "PYTHONUNBUFFERED": "1",
            **(env or {}),
        }
        paths = [str(self.cwd)]
        if kind.folder is not None:
            paths.insert(0, str(kind.folder))
        if "PYTHONPATH" in self.env:
            paths.append(self.env["PYTHONPATH"])
        self.env["PYTHONPATH"] = os.pathsep.join(paths)
        self.address: Address = ""
        self.process: subprocess.Popen[bytes] | None = None
        self._allowed_on_stderr = 0

    # --- life ----------------------------------------------------------------------------------

    def command(self) -> list[str]:
        """Return the command line for the present address."""
        if self.kind.family == "runserver":
            return [
                sys.executable, "-m", "django", "runserver",
                *self.kind.options, *self.options, f"127.0.0.1:{self.port}",
            ]  # fmt: skip
        if self.kind.family == "gunicorn":
            if self.kind.unix:
                bind = f"unix:{self.address}"
            else:
                bind = f"127.0.0.1:{self.port}"
            return [
                sys.executable, "-m", "gunicorn", "--bind", bind, "--log-level", "warning",
                *(("--certfile", str(server_file())) if self.kind.tls else ()),
                *self.kind.options, *self.options, f"{self.module}.wsgi:application",
            ]  # fmt: skip
        # Any other family brings its whole command, with {port}, {python} … in it.
        facts = {
            "port": None if self.kind.unix else self.port,
            "python": sys.executable,
            "module": self.module,
            "folder": self.folder,
            "bin": Path(sys.executable).parent,
            "certificate": server_file() if self.kind.tls else None,
        }
        command = [*self.kind.options, *self.options]
        return [part.format(**facts) for part in command]

    def start(self) -> Server:
        """Start the process and return once it answers."""
        for attempt in range(3):
            if self.kind.unix:
                self.address = str(self.folder / "socket")
            else:
                self.address = ("127.0.0.1", free_port())
                if self.kind.tls:
                    self.address = TlsAddress(self.address)
            with self.out.open("ab") as out, self.err.open("ab") as err:
                self.process = subprocess.Popen(
                    [*self.prefix, *self.command()],
                    cwd=self.cwd,
                    env=self.env,
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=err,
                    start_new_session=True,
                )
            try:
                eventually(self._answers, within=90, what=f"{self.kind} answers")
            except AssertionError as exc:
                self.kill()
                if attempt < 2 and "already in use" in self.stderr() + self.stdout():
                    continue
                exc.add_note(self.stderr()) if hasattr(exc, "add_note") else None
                raise
            return self
        raise AssertionError("unreachable")

    def _answers(self) -> bool:
        assert self.process is not None
        if self.process.poll() is not None:
            raise AssertionError(f"{self.kind} ended: {self.stdout()}{self.stderr()}")
        try:
            return self.get(self.probe, timeout=5).status < 500
        except OSError:
            return False

    def send_signal(self, number: int) -> None:
        """Send a signal to the server's main process only."""
        assert self.process is not None
        self.process.send_signal(number)

    @property
    def end_signal(self) -> int:
        """The signal that ends this server in the ordinary way (runserver is ended by Ctrl-C)."""
        return signal.SIGINT if self.kind.family == "runserver" else signal.SIGTERM

    def is_running(self) -> bool:
        """Whether the main process is alive."""
        return self.process is not None and self.process.poll() is None

    def wait(self, within: float = 30) -> int:
        """Wait for the process to end by itself and return its exit status."""
        assert self.process is not None
        return self.process.wait(within)

    def kill(self) -> None:
        """End the whole process group, whatever its state."""
        if self.process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(60)

    def stop(self) -> None:
        """
        End the process for certain and remove its files.

        How a server ends politely is the subject of tests of its own; elsewhere it is only time.
        """
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.stop()
            raise

    def __exit__(self, *exc: object) -> None:
        self.stop()

    # --- talking to it -------------------------------------------------------------------------

    @property
    def port(self) -> int:
        """The TCP port."""
        assert isinstance(self.address, tuple)
        return self.address[1]

    @property
    def host(self) -> str:
        """The value for the Host header."""
        return f"127.0.0.1:{self.port}" if isinstance(self.address, tuple) else "localhost"

    def url(self, path: str, scheme: str = "ws") -> str:
        """Return the address of a path; for a Unix socket the host is a placeholder."""
        scheme += "s" if self.kind.tls else ""
        return f"{scheme}://{self.host}{path}"

    def get(
        self,
        path: str,
        headers: Mapping[str, str] | None = None,
        *,
        method: str = "GET",
        timeout: float = 20,
    ) -> Response:
        """Make one plain HTTP request on a connection of its own."""
        if isinstance(self.address, TlsAddress):
            context = client_context()
            conn = http.client.HTTPSConnection(*self.address, timeout=timeout, context=context)
        elif isinstance(self.address, tuple):
            conn = http.client.HTTPConnection(*self.address, timeout=timeout)
        else:
            conn = _UnixHTTPConnection(self.address, timeout)
        try:
            conn.request(method, path, headers={"Connection": "close", **(headers or {})})
            answer = conn.getresponse()
            return Response(answer.status, answer.getheaders(), answer.read())
        except http.client.HTTPException as exc:
            raise ConnectionError(repr(exc)) from exc
        finally:
            conn.close()

    # --- looking at it -------------------------------------------------------------------------

    @property
    def pid(self) -> int:
        """The main process (gunicorn: the arbiter)."""
        assert self.process is not None
        return self.process.pid

    def workers(self) -> list[int]:
        """Return the pids of the processes that serve requests."""
        if self.kind.alone:
            return [self.pid]
        if self.kind.worker_title:
            return [
                pid
                for pid in children_of(self.pid)
                if is_running(pid) and self.kind.worker_title in command_line(pid)
            ]
        reloading = self.kind.family == "runserver" and "--noreload" not in self.kind.options
        if self.kind.family == "gunicorn" or reloading or self.kind.family == "asgi":
            return [pid for pid in children_of(self.pid) if is_running(pid)]
        return [self.pid]

    @property
    def worker(self) -> int:
        """The pid of the only worker."""
        (pid,) = self.workers()
        return pid

    def status(self) -> dict:
        """Return the project's own account of its worker: pid, thread names."""
        return self.get("/status/").json()

    def stdout(self) -> str:
        """Return everything written to stdout so far."""
        return self.out.read_text(errors="replace") if self.out.exists() else ""

    def stderr(self) -> str:
        """Return everything written to stderr so far."""
        return self.err.read_text(errors="replace") if self.err.exists() else ""

    @contextlib.contextmanager
    def quiet(self) -> Iterator[None]:
        """Assert that nothing is written to stderr within the block."""
        before = len(self.stderr())
        yield
        lines = self.stderr()[before:].splitlines()
        if self.kind.grumbles is not None:
            lines = [line for line in lines if not re.search(self.kind.grumbles, line)]
        assert not lines, lines

    @contextlib.contextmanager
    def nothing_left(self, within: float = 20.0) -> Iterator[None]:
        """
        Assert that `within` seconds after the block the worker is as it was before.

        The limit is below the time after which a ping would find a client that has gone.

        Same process, no more descriptors, no more threads. The parts that a server starts once and
        keeps (its pool, the engine) are started before the first look.
        """
        self.warm_up()
        pid = self.worker
        self.at_rest()
        fds, threads = descriptors(pid), thread_count(pid)
        yield
        try:
            eventually(lambda: len(descriptors(pid)) <= len(fds), within, "descriptors are back")
            eventually(lambda: thread_count(pid) <= threads, within, "threads are back")
        except AssertionError as exc:
            raise AssertionError(
                f"{exc}\ndescriptors were {fds}, are {descriptors(pid)}\n"
                f"threads were {threads}, are {thread_names(pid)}: {self.status()['threads']}"
            ) from exc
        assert self.worker == pid

    def at_rest(self, pid: int | None = None) -> None:
        """Wait until descriptors and threads of a worker have not changed for a while."""
        pid = pid or self.worker
        seen, since = (0, 0), 0.0

        def unchanged() -> bool:
            nonlocal seen, since
            before, seen = seen, (len(descriptors(pid)), thread_count(pid))
            if seen != before:
                since = time.monotonic()
            return time.monotonic() - since > 0.4

        eventually(unchanged, within=60, what="the worker is at rest")

    def warm_up(self) -> None:
        """Make the server start the parts that it keeps: pool threads and the engine."""
        waiting = []
        at_once = 4
        if self.kind.tls and "--worker-class" in self.kind.options:
            # A worker without a free thread does not even shake hands.
            at_once = {"sync": 1, "gthread": 2}.get(self.kind.options[1], at_once)
        for _ in range(at_once):
            peer = RawPeer(self.address)
            peer.send(f"GET {self.probe} HTTP/1.1\r\nHost: {self.host}\r\n".encode())
            waiting.append(peer)
        for peer in waiting:
            peer.send(b"Connection: close\r\n\r\n")
            peer.read_response()
            peer.close()
        if self.module == "project":
            with RawPeer.open(self, "/echo/") as peer:
                # By the time a page has come the view waits: its hub, if any, listens.
                self.get(self.probe)
                peer.send_close(1000)
                peer.read_to_eof()
