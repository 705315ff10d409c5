"""
Writes the table of docs/migration.md: what projects do, with the original and with ours.

    make test-all                            # or pytest tests/wild --compared FILE
    python tests/comparison.py               # from tests/wild/compared.json, which that writes
    python tests/comparison.py --check       # fails if a row of the page is not what was found

A cell is `yes` when the scenario passed on every server, `no` when on none, and else names the
servers on which it did not. Scenarios that pass with both are counted. A scenario that passes with
the original only needs a line in `CHANGES`: what the project has to write instead.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "migration.md"
FOUND = ROOT / "tests" / "wild" / "compared.json"
BEGIN, END = "<!-- table of scenarios: tests/comparison.py -->", "<!-- end of the table -->"

HEAD = ["what a project does", "original", "now"]
# The kinds of servers with the original are called so, and then as ours.
PREFIX = "original-"

# Scenario that passes with the original only, and the line to change.
CHANGES: dict[str, str] = {}

# Scenario: {"does": …, "original": {server: passed}, "ours": {server: passed}}.
Scenarios = dict[str, dict[str, Any]]


class ComparisonWriter:
    """Notes the result of each scenario of tests/wild in a file; others keep theirs there."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._scenarios: Scenarios = json.loads(path.read_text()) if path.exists() else {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note one test's end; failures that nobody expects are the run's to tell."""
        scenario = dict(report.user_properties).get("scenario")
        # With the original a scenario that fails is expected to.
        is_known = report.passed or hasattr(report, "wasxfail")
        if scenario is None or report.when != "call" or not is_known:
            return
        noted = self._scenarios.setdefault(scenario["name"], {"original": {}, "ours": {}})
        noted["does"] = scenario["does"]
        side = "original" if scenario["kind"].startswith(PREFIX) else "ours"
        noted[side][scenario["kind"].removeprefix(PREFIX)] = report.passed

    def pytest_sessionfinish(self) -> None:
        """Write them down."""
        self._path.write_text(json.dumps(self._scenarios, indent=1, sort_keys=True) + "\n")


def register(config: pytest.Config) -> None:
    """Note the scenarios when `--compared` is given, not in xdist's workers: they report here."""
    path = config.getoption("--compared")
    if path and "PYTEST_XDIST_WORKER" not in os.environ:
        config.pluginmanager.register(ComparisonWriter(path))


def cell(found: list[dict[str, bool]]) -> str:
    """Give one cell from the servers of each variant of a scenario."""
    servers = {server for each in found for server in each}
    failing = {server for each in found for server, passed in each.items() if not passed}
    if not servers:
        return "-"
    if failing == servers:
        return "no"
    return f"not on {', '.join(sorted(failing))}" if failing else "yes"


def rows(scenarios: Scenarios) -> list[list[str]]:
    """Give the cells of each row; the variants of a scenario share one."""
    variants: dict[str, list[dict[str, Any]]] = {}
    for name, scenario in sorted(scenarios.items()):
        variants.setdefault(name.partition("[")[0], []).append(scenario)
    found = []
    for name, each in variants.items():
        now = cell([scenario["ours"] for scenario in each])
        if name in CHANGES:
            now = f"{now}: {CHANGES[name]}"
        found.append([each[0]["does"], cell([scenario["original"] for scenario in each]), now])
    return found


def table(scenarios: Scenarios) -> str:
    """Give the table in Markdown, and how many scenarios pass with both."""
    found = rows(scenarios)
    different = [row for row in found if row[1:] != ["yes", "yes"]]
    lines = [HEAD, ["---"] * len(HEAD), *different]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"{table}\n\nWith both pass {len(found) - len(different)} of {len(found)}."


def unexplained(scenarios: Scenarios) -> list[str]:
    """Name the scenarios that pass with the original only, on some server, without a reason."""
    return [
        f"{name} on {server}"
        for name, scenario in sorted(scenarios.items())
        for server, passed in sorted(scenario["original"].items())
        if passed and not scenario["ours"].get(server)
        if name.partition("[")[0] not in CHANGES
    ]


def main(arguments: list[str]) -> int:
    """Rewrite the page, or only compare."""
    before, rest = PAGE.read_text().split(BEGIN)
    written, after = rest.split(END)
    right = table(json.loads(FOUND.read_text()))
    if "--check" not in arguments:
        PAGE.write_text(f"{before}{BEGIN}\n{right}\n{END}{after}")
        return 0
    wrong = sorted(set(written.strip().splitlines()) ^ set(right.splitlines()))
    for line in wrong:
        print(f"{PAGE.name}: {'missing' if line in right else 'wrong'}: {line}", file=sys.stderr)
    if wrong:
        print("To write it anew: python tests/comparison.py", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
