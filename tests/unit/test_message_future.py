"""The future that tasks await, when dropping an object runs Python code."""

from __future__ import annotations

import socket
import subprocess
import sys

# Objects that call the future while it drops them: one that still held its lock would wait for
# itself, with the GIL held.
PROGRAM = """
import asyncio, sys
from django.conf import settings
settings.configure()
from dwebsocket import _core, conf
from dwebsocket.api.waiting import loop_hub

connection = _core.adopt(
    int(sys.argv[1]), b"", b"HTTP/1.1 101 Switching Protocols\\r\\n\\r\\n",
    _core.Permit.claim(None), conf.Options.current({}).for_engine,
)

class Wakeup:
    def __init__(self, news):
        self.news = news
    def __call__(self, news):
        pass
    def __del__(self):
        self.news._asyncio_future_blocking
        self.news.result()
        print("gone", flush=True)

async def main():
    news = next(connection.next(loop_hub.current_core).__await__())
    for _ in range(3):
        news.add_done_callback(Wakeup(news))
    news.cancel()

asyncio.run(main())
"""


def test_callbacks_that_use_it_when_they_go() -> None:
    """A new callback takes the place of the former one, whose removal may run any code."""
    theirs, ours = socket.socketpair()
    command = [sys.executable, "-c", PROGRAM, str(ours.fileno())]
    with theirs, ours:
        done = subprocess.run(command, capture_output=True, timeout=60, pass_fds=[ours.fileno()])
    assert done.stdout.splitlines().count(b"gone") >= 2, done.stderr
