"""A network of its own for a client, whose packets can be dropped silently (Linux, root)."""

from __future__ import annotations

import contextlib
import ipaddress
import itertools
import os
import subprocess
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

#: The addresses of all of them: a network that is for tests of networks.
NETWORK = "198.18.0.0/15"
_numbers = itertools.count()


class Namespace:
    """
    A network namespace, joined to ours by one wire.

    Attributes:
        here: Our address on the wire, to listen on.
        there: Its address.
        command: The arguments to put in front of a command that shall run there.
    """

    def __init__(self, name: str, here: str, there: str) -> None:
        self.here = here
        self.there = there
        self.command = ["ip", "netns", "exec", name]
        self._name = name

    def cut(self) -> None:
        """Drop every packet from now on; neither side gets an error."""
        _run("ip", "-n", self._name, "link", "set", f"{self._name}t", "down")


@contextlib.contextmanager
def namespace() -> Iterator[Namespace]:
    """Make one; skips the test where that is not allowed. A process may have two at a time."""
    if os.getuid() != 0:
        pytest.skip("only root may make a network namespace")
    number = os.getpid() * 2 + next(_numbers) % 2
    name = f"dws{number}"
    # Four addresses.
    wire = ipaddress.ip_network(NETWORK)[number % 2**15 * 4]
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
        yield Namespace(name, here, there)


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, timeout=30)
