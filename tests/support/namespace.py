"""A network of its own for a client, whose packets can be dropped silently (Linux, root)."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import subprocess
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator


class Namespace:
    """
    A network namespace, joined to ours by one wire.

    Attributes:
        here: Our address on the wire, to listen on.
        command: The arguments to put in front of a command that shall run there.
    """

    def __init__(self, name: str, here: str) -> None:
        self.here = here
        self.command = ["ip", "netns", "exec", name]
        self._name = name

    def cut(self) -> None:
        """Drop every packet from now on; neither side gets an error."""
        _run("ip", "-n", self._name, "link", "set", f"{self._name}t", "down")


@contextlib.contextmanager
def namespace() -> Iterator[Namespace]:
    """Make one; skips the test where that is not allowed."""
    number = os.getpid()
    name = f"dws{number}"
    # Four addresses of 198.18.0.0/15, which is for tests of networks.
    wire = ipaddress.ip_address("198.18.0.0") + number % 2**15 * 4
    here, there = str(wire + 1), str(wire + 2)
    with contextlib.ExitStack() as undo:
        try:
            _run("ip", "netns", "add", name)
            undo.callback(_run, "ip", "netns", "delete", name)
            _run(
                *("ip", "link", "add", f"{name}h", "type", "veth"),
                *("peer", "name", f"{name}t", "netns", name),
            )
            # The namespace itself lives until its last connection has given up.
            undo.callback(_run, "ip", "link", "delete", f"{name}h")
            _run("ip", "address", "add", f"{here}/30", "dev", f"{name}h")
            _run("ip", "-n", name, "address", "add", f"{there}/30", "dev", f"{name}t")
            _run("ip", "link", "set", f"{name}h", "up")
            _run("ip", "-n", name, "link", "set", f"{name}t", "up")
        except (OSError, subprocess.CalledProcessError) as error:
            pytest.skip(f"no network namespace here: {error}")
        yield Namespace(name, here)


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, timeout=30)
