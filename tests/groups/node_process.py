"""Processes that a test drives: one command a line on their input, one answer a line."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from support.forked import Forked

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


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
