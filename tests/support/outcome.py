"""The tests that each server passed, by feature: the facts behind the table of servers."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from typing_extensions import Self

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


class Outcomes:
    """Collects, for each server and feature, how many tests passed and how many cannot."""

    def __init__(self) -> None:
        self._counts: dict[str, dict[str, list[int]]] = defaultdict(
            lambda: defaultdict(lambda: [0, 0])
        )

    @classmethod
    def read(cls, path: Path) -> Self:
        """Begin with what another run has found, if it has written that file."""
        outcomes = cls()
        if path.exists():
            for server, counts in json.loads(path.read_text()).items():
                outcomes._counts[server].update(counts)
        return outcomes

    def add(self, server: str, test: str, *, passed: bool) -> None:
        """Note one test's end; one that is expected to fail counts as not passed."""
        if (feature := feature_of(test)) is not None:
            self._counts[server][feature][not passed] += 1

    def write(self, path: Path) -> None:
        """Write `{server: {feature: [passed, unable]}}` as JSON."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(self._counts, indent=1, sort_keys=True) + "\n")
