"""Processes with groups over PostgreSQL, and the server that they share."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from support import postgres as database_server

if TYPE_CHECKING:
    from collections.abc import Iterator

NODE = Path(__file__).with_name("postgres_node.py")


def database(folder: Path, **options: Any) -> dict[str, Any]:
    """Give an entry of DATABASES for the server of a folder."""
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": "postgres",
        "USER": "postgres",
        "HOST": str(folder),
        **options,
    }


class Node:
    """A process of :mod:`postgres_node`."""

    def __init__(self, **options: Any) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(NODE), json.dumps(options)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n"

    def begin(self, command: str, *arguments: Any) -> None:
        """Send a command."""
        assert self.process.stdin is not None
        print(json.dumps([command, *arguments]), file=self.process.stdin, flush=True)

    def answer(self) -> Any:
        """Give the answer to a command."""
        assert self.process.stdout is not None
        return json.loads(self.process.stdout.readline())

    def __call__(self, command: str, *arguments: Any) -> Any:
        """Send a command and give its answer."""
        self.begin(command, *arguments)
        return self.answer()

    def kill(self) -> None:
        """End it without any warning."""
        self.process.kill()
        self.process.wait(60)


class Nodes:
    """All processes of a test."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.all: list[Node] = []

    def __call__(self, *, on: dict[str, Any] | None = None, **options: Any) -> Node:
        """Start one; `on` changes the entry of DATABASES, other options are the backend's."""
        process = {
            name: options.pop(name) for name in ("patched", "secret", "psycopg2") if name in options
        }
        groups = {"default": {"BACKEND": "dwebsocket.groups.postgres", **options}}
        node = Node(
            databases={"default": database(self.folder, **(on or {}))}, groups=groups, **process
        )
        self.all.append(node)
        return node

    def end(self) -> None:
        """End all of them."""
        for node in self.all:
            with suppress(ProcessLookupError):
                node.process.send_signal(signal.SIGCONT)
            node.kill()
            for stream in (node.process.stdin, node.process.stdout):
                if stream is not None:
                    with suppress(OSError):
                        stream.close()


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """The folder of the socket of a server that has the table."""
    with database_server.postgres() as found:
        nodes = Nodes(found)
        try:
            nodes()("manage", "migrate", "--verbosity", "0")
        finally:
            nodes.end()
        yield found


@pytest.fixture
def nodes(folder: Path) -> Iterator[Nodes]:
    """Start processes that share a server, and end them."""
    found = Nodes(folder)
    yield found
    found.end()
