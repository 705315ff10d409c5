"""Redis servers for the tests: Debian's, each on a port of its own of 127.0.0.1."""

from __future__ import annotations

import contextlib
import functools
import shutil
import signal
import socket
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from support.certificates import authority_file, server_file
from support.server import free_port
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from typing_extensions import Self

# Nothing is written to disks.
_OPTIONS = ("--save", "", "--appendonly", "no", "--daemonize", "no", "--loglevel", "notice")


class Redis:
    """
    A server, which can be stopped and started again; use as a context manager.

    Args:
        options: Further arguments of redis-server.
        port: That of the server; a free one by default.
        password: The password for :meth:`ask`.
        name: What its programs' names begin with: `redis` or `valkey`.
    """

    def __init__(
        self, *options: str, port: int | None = None, password: str = "", name: str = "redis"
    ) -> None:
        self._name = name
        self.port = port or free_port()
        self.folder = Path(tempfile.mkdtemp(prefix="redis-"))
        self.password = password
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def url(self) -> str:
        """The address for LOCATION."""
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def socket(self) -> Path:
        """The path of its Unix socket."""
        return self.folder / "redis.sock"

    @property
    def log(self) -> str:
        """What it has written."""
        return (self.folder / "log").read_text(errors="replace")

    @property
    def pid(self) -> int:
        """The process."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start it and wait until it answers."""
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [f"{self._name}-server", *self._arguments()],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
            )
        eventually(self.is_up, what="redis-server answers")

    def _arguments(self) -> list[str]:
        return [
            *("--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder)),
            *("--unixsocket", str(self.socket), *_OPTIONS, *self._options),
        ]

    def is_up(self) -> bool:
        """Whether it answers. Fail when it has ended by itself."""
        assert self._process is not None
        assert self._process.poll() is None, self.log
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as client:
            client.settimeout(5)
            client.connect(str(self.socket))
            client.sendall(b"PING\r\n")
            answer = client.recv(100)
            return answer.startswith((b"+PONG", b"-NOAUTH", b"-DENIED"))
        return False

    def is_running(self) -> bool:
        """Whether it was started and not ended."""
        return self._process is not None

    def kill(self) -> None:
        """End it at once."""
        if self._process is not None:
            if self._process.poll() is not None:
                # Shown beside the failure that this has caused.
                print(f"{self._name} on port {self.port} has ended by itself: {self.log[-8000:]}")
            self._process.send_signal(signal.SIGCONT)
            self._process.kill()
            self._process.wait()
            self._process = None

    def freeze(self) -> None:
        """Stop it from answering; its connections stay."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it answer again."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    @contextlib.contextmanager
    def away(self) -> Iterator[None]:
        """Take it down for a while."""
        self.kill()
        try:
            yield
        finally:
            self.start()

    def ask(self, *command: str) -> str:
        """Send a command and give the answer's text: of a list each element is a line."""
        import hiredis

        reader = hiredis.Reader(encoding="utf-8", errors="replace")
        answer: object = False
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(60)
            client.connect(str(self.socket))
            login = [("AUTH", self.password)] if self.password else []
            for each in (*login, command):
                client.sendall(hiredis.pack_command(each))
                while (answer := reader.gets()) is False:
                    received = client.recv(1 << 16)
                    if not received:
                        raise ConnectionResetError(self.log)
                    reader.feed(received)
        return "\n".join(_lines(answer)).strip()

    def channels(self) -> set[str]:
        """The names of the groups that have subscribers, whatever their project."""
        found = self.ask("PUBSUB", "CHANNELS").splitlines()
        found += self.ask("PUBSUB", "SHARDCHANNELS").splitlines()
        return {channel.split(":", 2)[2] for channel in found if channel.startswith("dwebsocket:")}

    def clients(self) -> list[dict[str, str]]:
        """The clients but the one that asks."""
        lines = self.ask("CLIENT", "LIST").splitlines()
        found = [dict(part.partition("=")[::2] for part in line.split()) for line in lines]
        return [client for client in found if client["cmd"] != "client|list"]


def _lines(answer: object) -> Iterator[str]:
    """Spread the lists in an answer."""
    if isinstance(answer, list):
        for each in answer:
            yield from _lines(each)
    else:
        yield "" if answer is None else str(answer)


class Sentinel(Redis):
    """
    A sentinel that looks after the service "main".

    Args:
        master: The first master.
        replicas: How many replicas it has to know before it is ready.
        silence_ms: How long a master may be silent.
    """

    def __init__(self, master: Redis, replicas: int, silence_ms: int) -> None:
        super().__init__()
        self._replicas = replicas
        (self.folder / "conf").write_text(
            f"port {self.port}\nbind 127.0.0.1\ndir {self.folder}\nunixsocket {self.socket}\n"
            f"sentinel monitor main 127.0.0.1 {master.port} 2\n"
            f"sentinel down-after-milliseconds main {silence_ms}\n"
            "sentinel failover-timeout main 5000\n"
        )

    def _arguments(self) -> list[str]:
        return [str(self.folder / "conf"), "--sentinel"]

    def master_port(self) -> int:
        """The port of the present master."""
        return int(self.ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", "main").split()[1])

    def is_ready(self, sentinels: int) -> bool:
        """Whether it knows all others."""
        words = self.ask("SENTINEL", "MASTER", "main").splitlines()
        known = dict(zip(words[::2], words[1::2], strict=True))
        return (known["num-slaves"], known["num-other-sentinels"]) == (
            str(self._replicas),
            str(sentinels - 1),
        )


class Service:
    """
    A master with two replicas, and three sentinels; use as a context manager.

    Args:
        silence_ms: After so many milliseconds a master is replaced. A busy machine makes one wait.
    """

    def __init__(self, silence_ms: int = 30_000) -> None:
        self._silence_ms = silence_ms
        self._all = contextlib.ExitStack()
        self.nodes: list[Redis] = []
        self.sentinels: list[Sentinel] = []

    def __enter__(self) -> Self:
        start = self._all.enter_context
        with contextlib.ExitStack() as undo:
            undo.callback(self._all.close)
            master = start(Redis())
            of_master = ("--replicaof", f"127.0.0.1 {master.port}", "--repl-diskless-sync-delay")
            self.nodes = [master, *(start(Redis(*of_master, "0")) for _ in range(2))]
            self.sentinels = [start(Sentinel(master, 2, self._silence_ms)) for _ in range(3)]
            for sentinel in self.sentinels:
                eventually(functools.partial(sentinel.is_ready, 3), what="sentinels are ready")
            undo.pop_all()
        return self

    def __exit__(self, *exception: object) -> None:
        self._all.close()

    @property
    def url(self) -> str:
        """The address for LOCATION."""
        nodes = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in self.sentinels)
        return f"redis+sentinel://{nodes}/main/0"

    @property
    def master(self) -> Redis:
        """The present master, as the sentinels agree."""

        def agreed() -> Redis | None:
            ports = {sentinel.master_port() for sentinel in self.sentinels}
            found = [node for node in self.nodes if node.port in ports]
            return found[0] if len(ports) == 1 else None

        return eventually(agreed, what="the sentinels agree")


class Cluster:
    """
    Three masters, each with a replica; use as a context manager.

    Args:
        silence_ms: As that of :class:`Service`.
    """

    def __init__(self, silence_ms: int = 30_000) -> None:
        self._silence_ms = silence_ms
        self._all = contextlib.ExitStack()
        self.nodes: list[Redis] = []

    def __enter__(self) -> Self:
        timeout = ("--cluster-node-timeout", str(self._silence_ms))
        options = ("--cluster-enabled", "yes", *timeout, "--cluster-port")
        with contextlib.ExitStack() as undo:
            undo.callback(self._all.close)
            addresses = []
            for _ in range(6):
                # By default it would be one that nobody has looked at.
                bus = free_port()
                node = self._all.enter_context(Redis(*options, str(bus)))
                self.nodes.append(node)
                addresses.append(f"127.0.0.1:{node.port}@{bus}")
            subprocess.run(
                [
                    *("redis-cli", "--cluster", "create", *addresses),
                    *("--cluster-replicas", "1", "--cluster-yes"),
                ],
                check=True,
                stdout=subprocess.DEVNULL,
                timeout=120,
            )
            eventually(self.is_ready, what="the cluster is ready")
            undo.pop_all()
        return self

    def __exit__(self, *exception: object) -> None:
        self._all.close()

    def is_ready(self) -> bool:
        """Whether all nodes know all others, and each replica follows its master."""
        for node in self.nodes:
            lines = node.ask("CLUSTER", "NODES").splitlines()
            if len(lines) != 6 or sum("slave" in line.split()[2] for line in lines) != 3:
                return False
            if "cluster_state:ok" not in node.ask("CLUSTER", "INFO"):
                return False
            role = node.ask("ROLE").split()
            if role[0] == "slave" and role[3] != "connected":
                return False
        return True

    @property
    def url(self) -> str:
        """The address for LOCATION."""
        return f"redis+cluster://{','.join(f'127.0.0.1:{node.port}' for node in self.nodes)}/0"

    def node_with(self, group: str) -> Redis:
        """The node that has the subscriptions of a group."""
        (found,) = (node for node in self.nodes if group in node.channels())
        return found

    def channels(self) -> set[str]:
        """The names of the groups that have subscribers, on all nodes."""
        return set().union(*(node.channels() for node in self.nodes if node.is_running()))


def tls_options(port: int, *, asks_clients: bool = False) -> tuple[str, ...]:
    """Give the options for a port with TLS, and whether clients need a certificate there."""
    return (
        *("--tls-port", str(port), "--tls-cert-file", str(server_file())),
        *("--tls-key-file", str(server_file()), "--tls-ca-cert-file", str(authority_file())),
        *("--tls-auth-clients", "yes" if asks_clients else "no"),
    )


def settings(location: str | list[str], **more: Any) -> dict[str, Any]:
    """Give an entry of WEBSOCKET_GROUPS. TIMEOUT is one that a busy machine does not reach."""
    return {
        "BACKEND": "dwebsocket.groups.redis",
        "LOCATION": location,
        "TIMEOUT": 20.0,
        **more,
    }
