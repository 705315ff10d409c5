"""Processes with channel layers, as tests drive them."""

from __future__ import annotations

import ast
import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

SCRIPT = Path(__file__).with_name("layer_process.py")


class Other:
    """Another process of the project. Its calls are those of a layer, and of `layer_process.py`."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(SCRIPT), json.dumps(settings)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._numbers = 0
        self._answers: dict[int, tuple[bool, Any]] = {}
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n"

    def begin(self, name: str, *arguments: Any) -> int:
        """Begin a call; gives its number."""
        self._numbers += 1
        assert self._process.stdin is not None
        print(repr((self._numbers, name, *arguments)), file=self._process.stdin, flush=True)
        return self._numbers

    def finish(self, number: int) -> Any:
        """Wait for the result of a call."""
        assert self._process.stdout is not None
        while number not in self._answers:
            line = self._process.stdout.readline()
            assert line, "the process has ended"
            found, is_good, result = ast.literal_eval(line)
            self._answers[found] = (is_good, result)
        is_good, result = self._answers.pop(number)
        if not is_good:
            raise AssertionError(result)
        return result

    def __call__(self, name: str, *arguments: Any) -> Any:
        """Give the result of a call."""
        return self.finish(self.begin(name, *arguments))

    async def acall(self, name: str, *arguments: Any) -> Any:
        """As a call, beside an event loop."""
        return await asyncio.to_thread(self, name, *arguments)

    def end(self) -> None:
        """Let it end by itself."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        if not self._process.stdin.closed:
            self._process.stdin.close()
            assert self._process.wait(60) == 0
            self._process.stdout.close()

    def kill(self) -> None:
        """End it by SIGKILL."""
        self._process.kill()
        self._process.wait(60)
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            stream.close()
