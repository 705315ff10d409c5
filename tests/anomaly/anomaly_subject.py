"""A server in which calls of the system fail, and whether it is afterwards as it was before."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from support.server import Server, descriptors, thread_names
from support.waiting import eventually

if TYPE_CHECKING:
    from anomaly_plan import Fault

# Seconds in which all is well again.
WELL_S = 30
# Threads that stay once they were needed, of which there are never more.
POOL, MOST_IN_POOL = "tokio-rt-worker", 8
# Records of one failure, and of two seconds of failures: more are a flood.
OF_ONE, OF_SECONDS = 6, 40
_RECORD = re.compile(
    r"^(?:WARNING|ERROR|CRITICAL) (?:dwebsocket[\w.]*|django.request): .*", re.MULTILINE
)
_PANIC = re.compile(r"panicked at .*\n.*|fatal runtime error.*|Fatal Python error.*")
# PostgreSQL's library gives no cause where it gets no socket.
_NO_DETAILS = "no error details available"


class Subject:
    """
    A server of which one process is watched.

    Attributes:
        server: The server.
        pid: The process.
    """

    def __init__(self, server: Server) -> None:
        self.server = server
        self.pid = server.worker
        self._descriptors: list[str] = []
        self._threads: list[str] = []
        self._log = 0

    def note(self) -> None:
        """Take it as it is now for what it has to be afterwards."""
        self.server.at_rest(self.pid)
        self._descriptors = descriptors(self.pid)
        self._threads = self._own_threads()

    def begin(self) -> None:
        """Take note of its log's end."""
        self._log = len(self.server.stderr())

    def log(self) -> str:
        """Give what was logged since then."""
        return self.server.stderr()[self._log :]

    def assert_log(self, fault: Fault, *, has_worked: bool, lasting: bool) -> None:
        """Fail when the log does not say why something has not worked, or says too much."""
        log = self.log()
        assert not (panics := _PANIC.findall(log)), panics
        records = _RECORD.findall(log)
        assert len(records) <= (OF_SECONDS if lasting else OF_ONE), f"a flood: {records}"
        assert has_worked or fault.is_quiet or _NO_DETAILS in log or fault.is_named(log), (
            "no line names the cause"
        )
        own = [record for record in records if "dwebsocket" in record and fault.is_named(record)]
        assert lasting or len(own) <= 1, f"one failure in several records: {own}"

    def assert_as_before(self) -> None:
        """Fail unless it has no more descriptors and threads than it had."""
        # An event loop that asyncio could open by half is left to the collector.
        self.server.get("/census/")
        try:
            eventually(self._has_no_more, WELL_S)
        except AssertionError:
            raise AssertionError(
                f"descriptors were {self._descriptors}, are {descriptors(self.pid)}; threads were"
                f" {self._threads}, are {self._own_threads()}"
            ) from None

    def _has_no_more(self) -> bool:
        return len(descriptors(self.pid)) <= len(self._descriptors) and len(
            self._own_threads()
        ) <= len(self._threads)

    def _own_threads(self) -> list[str]:
        names = thread_names(self.pid)
        assert names.count(POOL) <= MOST_IN_POOL, names
        return [name for name in names if name != POOL]
