"""The redis backend in green threads."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from support.redis import Redis
from support.redis_backend import backend, send

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.needs("redis")
SCRIPT = Path(__file__).with_name("green_publisher.py")
KINDS = [(library, how) for library in ("gevent", "eventlet") for how in ("patched", "plain")]


@pytest.fixture
def server() -> Iterator[Redis]:
    """A server of the test alone."""
    with Redis() as redis:
        yield redis


def run(
    library: str, how: str, server: Redis, timeout: float
) -> tuple[int, list[str], list[float]]:
    """Publish twice in such a process; give the turns of others, the results and the times."""
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", str(SCRIPT), library, how, server.url, str(timeout)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    turns, *results = ran.stdout.splitlines()
    return int(turns), results[::2], [float(seconds) for seconds in results[1::2]]


@pytest.mark.parametrize(("library", "how"), KINDS)
def test_publishing(server: Redis, library: str, how: str) -> None:
    """Works as in a thread."""
    assert run(library, how, server, 20)[1] == ["sent", "sent"]


@pytest.mark.parametrize(("library", "how"), KINDS)
def test_others_run_while_a_green_thread_waits(server: Redis, library: str, how: str) -> None:
    """A server that does not answer stops no other green thread."""
    made = backend(server.url)
    send(made, "room", "x")
    server.freeze()
    try:
        turns, results, seconds = run(library, how, server, 1.5)
    finally:
        server.thaw()
    assert all("no reply within 1.5 s" in result for result in results)
    assert all(each >= 1.4 for each in seconds)
    # Each of them alone would have stopped the hub for more than a second.
    assert turns > 5
