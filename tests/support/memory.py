"""How much memory this process needs for something, what the engine allocates included."""

from __future__ import annotations

import re
from pathlib import Path

_PROC = Path("/proc/self")


class PeakMemory:
    """
    Watches the memory of this process; use as a context manager.

    Attributes:
        added: Bytes of the peak within the block, beyond what the process had before it.
    """

    added = 0

    def __enter__(self) -> PeakMemory:  # noqa: PYI034
        # Makes the present size the highest one so far (proc_pid_clear_refs(5)).
        (_PROC / "clear_refs").write_text("5")
        self._before = _peak()
        return self

    def __exit__(self, *exc: object) -> None:
        self.added = _peak() - self._before


def _peak() -> int:
    found = re.search(r"VmHWM:\s+(\d+) kB", (_PROC / "status").read_text())
    assert found is not None
    return 1024 * int(found[1])
