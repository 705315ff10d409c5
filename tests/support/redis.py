"""Redis servers for the tests: Debian's, each on a port of its own of 127.0.0.1."""

from __future__ import annotations

import contextlib
import shutil
import signal
import socket
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
    """

    def __init__(self, *options: str, port: int | None = None, password: str = "") -> None:
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
                [
                    *("redis-server", *self._first(), "--port", str(self.port)),
                    *("--bind", "127.0.0.1", "--dir", str(self.folder)),
                    *("--unixsocket", str(self.socket), *_OPTIONS, *self._options),
                ],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
            )
        eventually(self.is_up, what="redis-server answers")

    def _first(self) -> tuple[str, ...]:
        return ()

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

    def kill(self) -> None:
        """End it at once."""
        if self._process is not None:
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
        """Send a command and give the answer's text."""
        login = ("-a", self.password, "--no-auth-warning") if self.password else ()
        asked = subprocess.run(
            ["redis-cli", "-s", str(self.socket), *login, *command],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        return asked.stdout.strip()

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


def settings(location: str | list[str], **more: Any) -> dict[str, Any]:
    """Give an entry of WEBSOCKET_GROUPS."""
    return {"BACKEND": "dwebsocket.groups.redis", "LOCATION": location, **more}
