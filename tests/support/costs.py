"""
What tests cost: processor time of this process, of its children, and of all that they started.

`make test DURATIONS=1` prints it for each file. A server that tests share costs the tests during
which it worked, its start the test that started it.
"""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

_TICKS = os.sysconf("SC_CLK_TCK")
PROPERTY = "processor seconds"
_BEGAN = pytest.StashKey[float]()


def processor_seconds() -> float:
    """Return the processor time that this process and its descendants have used so far."""
    parents: dict[int, int] = {}
    used: dict[int, int] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError, IndexError):
                stat = Path(f"/proc/{entry}/stat").read_text(errors="replace")
                fields = stat.rpartition(")")[2].split()
                parents[int(entry)] = int(fields[1])
                # Of the process itself, and of the children that it has waited for.
                used[int(entry)] = sum(map(int, fields[11:15]))
    me = os.getpid()
    return sum(used[pid] for pid in used if pid == me or _descends(pid, me, parents)) / _TICKS


def _descends(pid: int, ancestor: int, parents: dict[int, int]) -> bool:
    while pid in parents:
        pid = parents[pid]
        if pid == ancestor:
            return True
    return False


class Costs:
    """Adds to the last report of each test what it has cost, and prints the sums at the end."""

    def __init__(self) -> None:
        self._seconds: Counter[str] = Counter()
        self._tests: Counter[str] = Counter()

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        """Begin before the fixtures of the test are set up."""
        item.stash[_BEGAN] = processor_seconds()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Iterator[None]:
        """End after they were torn down, in the process that ran the test."""
        report = yield
        if call.when == "teardown" and _BEGAN in item.stash:
            report.user_properties.append((PROPERTY, processor_seconds() - item.stash[_BEGAN]))
        return report

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Add them up where the reports of all workers come together."""
        seconds = dict(report.user_properties).get(PROPERTY)
        if seconds is not None:
            file = report.nodeid.partition("::")[0]
            self._seconds[file] += seconds
            self._tests[file] += 1

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Print the files, the dearest first."""
        terminalreporter.section("processor time of each file")
        terminalreporter.line(" seconds  tests")
        for file, seconds in self._seconds.most_common():
            terminalreporter.line(f"{seconds:8.1f} {self._tests[file]:6}  {file}")
        terminalreporter.line(f"{self._seconds.total():8.1f} {self._tests.total():6}  all")
