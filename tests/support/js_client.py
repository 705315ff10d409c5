"""`dwebsocket.js` in a Node process that does what the test says."""

from __future__ import annotations

import json
import os
import subprocess
import threading
from typing import TYPE_CHECKING, Any

from support.server import TESTS
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Mapping

    from typing_extensions import Self

DRIVER = TESTS / "client" / "driver.mjs"


class JsClient:
    """One socket; use as a context manager. `events` has what its handlers were called with."""

    def __init__(self, url: str, env: Mapping[str, str] | None = None, **options: Any) -> None:
        self._env = {**os.environ, **(env or {})}
        self.events: list[list[Any]] = []
        self._answers: dict[int, dict[str, Any]] = {}
        self._calls = 0
        self._command = ["node", str(DRIVER), url, json.dumps(options)]

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=self._env,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        return self

    def __exit__(self, *exc: object) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join()
        self._process.stdout.close()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if not line.startswith("{"):
                print("node:", line, end="")
                continue
            fact = json.loads(line)
            if "event" in fact:
                self.events.append(fact["event"])
            else:
                self._answers[fact["id"]] = fact

    def start(self, call: str, *values: Any) -> int:
        """Begin a call, give its number."""
        self._calls += 1
        assert self._process.stdin is not None
        line = json.dumps({"id": self._calls, "call": call, "with": values})
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()
        return self._calls

    def result(self, number: int) -> Any:
        """Wait for a call's result; an error is a text with its name."""
        answer = eventually(lambda: self._answers.get(number), 60, "the call has ended")
        return answer["value"] if "value" in answer else f"error: {answer['error']}"

    def call(self, call: str, *values: Any) -> Any:
        """Make a call, and wait for its result."""
        return self.result(self.start(call, *values))

    def of(self, kind: str) -> list[Any]:
        """Give the first values of all events of a kind so far: messages, or states."""
        return [event[1] for event in self.events if event[0] == kind]

    def is_told(self, kind: str, *values: Any, times: int = 1) -> None:
        """Wait until a value has come with events of a kind."""
        try:
            eventually(lambda: all(self.of(kind).count(value) >= times for value in values), 60)
        except AssertionError:
            raise AssertionError(f"no {kind} {values}: {self.events}") from None
