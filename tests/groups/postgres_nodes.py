"""Processes with groups over PostgreSQL, and the server that they share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from node_process import Node

from support import postgres as database_server

if TYPE_CHECKING:
    from collections.abc import Iterator

NODE = Path(__file__).with_name("postgres_node.py")


class Nodes:
    """All processes of a test."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.all: list[Node] = []

    def __call__(self, *, on: dict[str, Any] | None = None, **options: Any) -> Node:
        """
        Start one; `on` changes the entry of DATABASES, other options are the backend's.

        TIMEOUT is one that a busy machine does not reach.
        """
        process = {
            name: options.pop(name)
            for name in ("patched", "secret", "psycopg2", "apps")
            if name in options
        }
        groups = {"default": {"BACKEND": "dwebsocket.groups.postgres", "TIMEOUT": 20.0, **options}}
        databases = {"default": database_server.entry(self.folder, **(on or {}))}
        is_fresh = not process.keys().isdisjoint({"patched", "psycopg2"})
        options = {"databases": databases, "groups": groups, **process}
        node = Node(NODE, options, is_fresh=is_fresh)
        self.all.append(node)
        return node

    def end(self) -> None:
        """End all of them."""
        for node in self.all:
            node.clean_up()


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
