"""Many views that wake while a long call holds the GIL."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from peer import TIMEOUT_S

from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable

    from peer import LiveWebSocket

VIEWS = 200
# Sends an unmasked key, "x", in a text frame to each descriptor, as soon as it is told to.
SENDS = """
import os, sys
sys.stdin.readline()
for descriptor in map(int, sys.argv[1:]):
    os.write(descriptor, bytes([0x81, 0x81, 0, 0, 0, 0]) + b"x")
"""


def _switches() -> int:
    """How often threads of this process have gone to sleep so far."""
    total = 0
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):  # it has just ended
            status = (task / "status").read_text()
            total += int(status.split("\nvoluntary_ctxt_switches:")[1].split()[0])
    return total


def test_few_threads_at_a_time_wait_for_the_gil(
    open_websocket: Callable[[], LiveWebSocket],
) -> None:
    """Each of them wakes every 5 ms: thousands would take the core from the holder."""
    lives = [open_websocket() for _ in range(VIEWS)]
    received: list[object] = []
    counted = threading.Event()

    def view(live: LiveWebSocket) -> None:
        received.append(live.connection.take(None, False))
        counted.wait(TIMEOUT_S)

    views = [threading.Thread(target=view, args=(live,)) for live in lives]
    for thread in views:
        thread.start()
    eventually(lambda: all(live.connection.is_awaited() for live in lives))
    descriptors = [live.client.sock.fileno() for live in lives]
    with subprocess.Popen(
        [sys.executable, "-c", SENDS, *map(str, descriptors)],
        stdin=subprocess.PIPE,
        pass_fds=descriptors,
    ) as client:
        assert client.stdin is not None
        before = _switches()
        client.stdin.write(b"\n")
        client.stdin.flush()
        began = time.monotonic()
        # C code, which does not release the GIL in between.
        sum(range(60_000_000))
        held_s = time.monotonic() - began
        switches = _switches() - before
        client.stdin.close()
    eventually(lambda: len(received) == VIEWS)
    counted.set()
    for thread in views:
        thread.join(TIMEOUT_S)
    assert received == ["x"] * VIEWS
    waiting = switches * sys.getswitchinterval() / held_s
    assert waiting < VIEWS / 4
