"""Processes that a test drives: one command a line on their input, one answer a line."""

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
    from collections.abc import Sequence

FORK_SERVER = Path(__file__).with_name("fork_server.py")


class ForkServer:
    """The process that others are forked from. It ends with this one."""

    def __init__(self) -> None:
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._lock = threading.Lock()
        with theirs:
            self._process = subprocess.Popen([sys.executable, str(FORK_SERVER)], stdin=theirs)
        atexit.register(self._end)

    def fork(self, script: Path, argument: Any, stdin: int, stdout: int) -> tuple[int, int]:
        """Start a process with these streams; give its pid, and a descriptor of it."""
        message = [str(script), json.dumps(argument), os.getcwd(), dict(os.environ)]
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

    def __init__(self, script: Path, argument: Any) -> None:
        theirs, stdin = os.pipe()
        stdout, theirs_too = os.pipe()
        self.stdin: IO[str] | None = os.fdopen(stdin, "w")
        self.stdout: IO[str] | None = os.fdopen(stdout)
        try:
            self.pid, descriptor = fork_server().fork(script, argument, theirs, theirs_too)
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


class Node:
    """
    A process that runs a script, and says so when it is ready.

    Args:
        script: The script.
        argument: Its only argument, passed on as JSON.
        is_fresh: It imports everything itself: what is patched, or has other libraries.
        prefix: Arguments in front of its command; it is fresh, too.
        process: Further arguments for `Popen`; likewise.
    """

    def __init__(
        self,
        script: Path,
        argument: Any,
        *,
        is_fresh: bool = False,
        prefix: Sequence[str] = (),
        **process: Any,
    ) -> None:
        self.process: Forked | subprocess.Popen[str]
        if not (is_fresh or prefix or process):
            self.process = Forked(script, argument)
        else:
            self.process = subprocess.Popen(
                [*prefix, sys.executable, str(script), json.dumps(argument)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                **process,
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

    def end(self) -> None:
        """End the process as one that is done."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(60)

    def kill(self) -> None:
        """End it without any warning."""
        self.process.kill()
        self.process.wait(60)

    def clean_up(self) -> None:
        """End it in whatever state, also a stopped one, and close its streams."""
        with suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGCONT)
        self.kill()
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                with suppress(OSError):
                    stream.close()
