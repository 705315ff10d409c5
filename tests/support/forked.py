"""Processes that have imported Django already: a process that has done so forks them."""

from __future__ import annotations

import atexit
import functools
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import weakref
from contextlib import suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

FORK_SERVER = Path(__file__).with_name("fork_server.py")
DJANGO_PROCESS = Path(__file__).with_name("django_process.py")


class ForkServer:
    """The process that others are forked from. It ends with this one."""

    def __init__(self) -> None:
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._lock = threading.Lock()
        with theirs:
            self._process = subprocess.Popen([sys.executable, str(FORK_SERVER)], stdin=theirs)
        atexit.register(self._end)

    def fork(
        self, script: Path, argument: Any, stdin: int, stdout: int, environment: Mapping[str, str]
    ) -> tuple[int, int]:
        """Start a process with these streams; give its pid, and a descriptor of it."""
        message = [str(script), json.dumps(argument), os.getcwd(), dict(environment)]
        with self._lock:
            # Its errors go where those of the test that starts it go.
            socket.send_fds(self._control, [json.dumps(message).encode()], [stdin, stdout, 2])
            answer, descriptors, _, _ = socket.recv_fds(self._control, 100, 1)
        return int(answer), descriptors[0]

    def _end(self) -> None:
        self._control.close()
        self._process.wait(60)


fork_server = functools.cache(ForkServer)


class Forked:
    """A process of the fork server, with what `Popen` has for the own ones."""

    def __init__(
        self, script: Path, argument: Any, environment: Mapping[str, str] = os.environ
    ) -> None:
        theirs, stdin = os.pipe()
        stdout, theirs_too = os.pipe()
        self.stdin: IO[str] | None = os.fdopen(stdin, "w")
        self.stdout: IO[str] | None = os.fdopen(stdout)
        try:
            self.pid, descriptor = fork_server().fork(
                script, argument, theirs, theirs_too, environment
            )
        finally:
            os.close(theirs)
            os.close(theirs_too)
        # By its number alone another process could be meant, once it has ended.
        self._descriptor = descriptor
        weakref.finalize(self, os.close, descriptor)

    def send_signal(self, number: int) -> None:
        """Send a signal, if it has not ended."""
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._descriptor, number)

    def kill(self) -> None:
        """End it without any warning."""
        self.send_signal(signal.SIGKILL)

    def wait(self, within: float) -> None:
        """Wait for its end."""
        ended = select.poll()
        ended.register(self._descriptor, select.POLLIN)
        if not ended.poll(within * 1000):
            raise subprocess.TimeoutExpired(str(self.pid), within)


def run_django(*arguments: str, settings: Mapping[str, object]) -> subprocess.CompletedProcess[str]:
    """Run `python -m django` on the test project, with these in place of its settings."""
    environment = {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "project.settings",
        "PROJECT_SETTINGS": json.dumps(settings),
    }
    process = Forked(DJANGO_PROCESS, arguments, environment)
    assert process.stdin is not None
    assert process.stdout is not None
    with process.stdin, process.stdout:
        try:
            status, *streams = json.load(process.stdout)
        finally:
            process.kill()
    return subprocess.CompletedProcess(arguments, status, *streams)
