"""Which call of the system fails in which process: what tests share with anomaly_calls.c."""

from __future__ import annotations

import errno
import mmap
import os
import struct
import subprocess
import time
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING

from support.waiting import eventually

if TYPE_CHECKING:
    from typing_extensions import Self

SOURCE = Path(__file__).with_name("anomaly_calls.c")
# As `struct plan` there has it: pid; kind, error, of_engine, nth, ms; calls, failed; until.
_PID, _ORDER, _COUNTS, _UNTIL = map(struct.Struct, ("I", "IiIII", "II", "Q"))
SIZE = 40


class Kind(IntEnum):
    """The kinds of calls, in the order of `enum kind`."""

    THREAD, DESCRIPTOR, WATCH, MAP, DISK, CONNECT, SEND, RECEIVE, WAIT, FORK = range(1, 11)


@dataclass(frozen=True)
class Fault:
    """
    How calls fail.

    Attributes:
        kind: Which calls.
        error: The error; 0: half of what is written.
        of_engine: Only calls of the engine count, not those of Python and the server.
        is_quiet: The log need not name it: clients that go are an ordinary thing.
    """

    kind: Kind
    error: int
    of_engine: bool = False
    is_quiet: bool = False

    def is_named(self, log: str) -> bool:
        """Whether a log has the cause in words, the system's or Python's."""
        of_python = self.kind is Kind.THREAD and "can't start new thread" in log
        return of_python or os.strerror(self.error) in log

    def __str__(self) -> str:
        name = errno.errorcode.get(self.error, "short")
        return f"{self.kind.name.lower()}-{name}{'-engine' * self.of_engine}"


FAULTS = (
    Fault(Kind.THREAD, errno.EAGAIN),
    Fault(Kind.DESCRIPTOR, errno.EMFILE),
    Fault(Kind.DESCRIPTOR, errno.ENFILE, of_engine=True),
    Fault(Kind.WATCH, errno.ENOSPC, of_engine=True),
    Fault(Kind.MAP, errno.ENOMEM, of_engine=True),
    Fault(Kind.DISK, errno.ENOSPC, of_engine=True),
    Fault(Kind.DISK, errno.EIO, of_engine=True),
    Fault(Kind.DISK, 0, of_engine=True),
    Fault(Kind.CONNECT, errno.ECONNRESET),
    Fault(Kind.CONNECT, errno.EINTR, of_engine=True),
    Fault(Kind.SEND, errno.ECONNRESET, is_quiet=True),
    Fault(Kind.SEND, errno.ENOBUFS, of_engine=True, is_quiet=True),
    Fault(Kind.SEND, errno.EINTR, is_quiet=True),
    Fault(Kind.SEND, 0, is_quiet=True),
    Fault(Kind.RECEIVE, errno.ECONNRESET, is_quiet=True),
    Fault(Kind.RECEIVE, errno.EINTR, is_quiet=True),
    Fault(Kind.WAIT, errno.EINTR, is_quiet=True),
    Fault(Kind.FORK, errno.EAGAIN),
)


class Plan:
    """
    What fails, in a file that processes with :attr:`env` share; use as a context manager.

    Attributes:
        env: Environment variables of the processes in which calls may fail.
    """

    def __init__(self, folder: Path) -> None:
        library, path = folder / "anomaly_calls.so", folder / "plan"
        if not library.exists():
            command = ["cc", "-O1", "-fPIC", "-shared", "-o", str(library), str(SOURCE), "-ldl"]
            subprocess.run(command, check=True, timeout=60)
        path.write_bytes(bytes(SIZE))
        self.env = {"LD_PRELOAD": str(library), "ANOMALY_PLAN": str(path)}
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), SIZE)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._map.close()

    def fail(self, pid: int, fault: Fault, nth: int, ms: int) -> None:
        """Let the n-th call from now on fail, and all others for so long behind it."""
        order = (fault.kind, fault.error, fault.of_engine, nth, ms)
        self._map[4:SIZE] = _ORDER.pack(*order) + bytes(SIZE - 24)
        self._map[:4] = _PID.pack(pid)

    def end(self) -> int:
        """Let no more calls fail; give how many have."""
        self._map[:4] = _PID.pack(0)
        return self.counts()[1]

    def counts(self) -> tuple[int, int]:
        """Give how many calls of the kind there were, and how many have failed."""
        calls, failed = _COUNTS.unpack_from(self._map, 24)
        return calls, failed

    def outlast(self) -> None:
        """Wait until the time is over in which calls fail."""
        (until,) = _UNTIL.unpack_from(self._map, 32)
        eventually(lambda: time.monotonic_ns() > until, what="the time is over")
