"""The tests that each server passed, by feature: the facts behind the table of servers."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

# Column of the table, and the tests that speak for it.
FEATURES = {
    "messages": r"::TestMessages::",
    "early bytes": r"::test_early_",
    "101 with headers": r"::TestHandshake::(?!test_early_)",
    "refusals": r"::TestRefusals::|::test_limits_on_handshakes",
    "closing": r"::TestEnds::",
    "Django": r"::TestDjango::|::TestWorkers::",
    "keepalive": r"::TestKeepalive::",
    "nothing left": r"::TestNothingLeft::",
    "SIGTERM": r"::test_process_stops",
}
OF_THE_LIST = re.compile(r"servers/test_(contract|resources)\.py")


def feature_of(test: str) -> str | None:
    """Give the feature that a test speaks for, by its node id."""
    if not OF_THE_LIST.search(test):
        return None
    return next((name for name, tests in FEATURES.items() if re.search(tests, test)), None)


def read(files: Iterable[Path]) -> dict[str, dict[str, list[int]]]:
    """Count what passed and what is expected to fail, in reports of runs (pytest-reportlog)."""
    counts: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(lambda: [0, 0]))
    for file in files:
        with file.open() as lines:
            for report in map(json.loads, lines):
                _count(report, counts)
    return counts


def _count(report: dict[str, Any], counts: dict[str, dict[str, list[int]]]) -> None:
    server = dict(report.get("user_properties", ())).get("server")
    passed = report.get("when") == "call" and report["outcome"] == "passed"
    # Failures are the run's to tell.
    if server and (passed or "wasxfail" in report):
        feature = feature_of(report["nodeid"])
        if feature is not None:
            counts[server][feature][not passed] += 1
