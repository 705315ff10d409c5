"""The rows of the benchmark: the work that each has clients do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

# In flight in a chat unless it says otherwise.
CHAT_IN_FLIGHT = 4


@dataclass(frozen=True)
class Work:
    """
    One row of the benchmark.

    ``size`` is in payload bytes; ``kind`` is text or binary; ``mode`` is the work of the load
    generator; ``stopped`` are connections beside the others whose answers are not read;
    ``middleware`` says that Django has that of a new project.
    """

    connections: int
    size: int = 32
    in_flight: int = 1
    kind: str = "text"
    mode: Literal["echo", "chat", "idle", "opening"] = "echo"
    stopped: int = 0
    middleware: bool = False

    @property
    def name(self) -> str:
        """A name for tables and for choosing."""
        if self.mode == "idle":
            return f"idle {self.connections:,}"
        if self.mode == "opening":
            return "opening, with middleware" if self.middleware else "opening"
        units = ((2**20, "MiB"), (2**10, "KiB"), (1, "B"))
        unit, word = next(pair for pair in units if self.size % pair[0] == 0)
        size = f"{self.size // unit} {word}"
        if self.mode == "chat":
            burst = f", {self.in_flight} in flight" if self.in_flight != CHAT_IN_FLIGHT else ""
            return f"chat {size}, {self.connections:,} members{burst}"
        burst = f", {self.in_flight} in flight" if self.in_flight > 1 else ""
        stopped = f", {self.stopped} stopped readers" if self.stopped else ""
        return f"echo {size} {self.kind} x{self.connections}{burst}{stopped}"
