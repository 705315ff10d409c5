"""
Decides over a run of .ci/run: runs failed tests again, alone, and prints one table.

    python .ci/verdict.py FOLDER

FOLDER has what the steps left there: `steps`, a line each with name, seconds and exit status
separated by tabs; NAME.log, the output of step NAME; NAME.jsonl, the reports of its tests
(pytest-reportlog). A test that fails again is red. One that passes alone is unstable: up to three
of them are only printed, with both outputs. Each is a defect to mend in the same piece of work.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

ROOT = Path(__file__).resolve().parent.parent
# With more of them a change is broken: to run them again would only take time.
RUN_AGAIN = 15
UNSTABLE = 3
# pytest's exit status when tests have failed, and nothing worse.
TESTS_FAILED = 1

_RESULT = re.compile(r"^test result: \w+\. (\d+) passed; (\d+) failed; (\d+) ignored", re.MULTILINE)
_NAMES = re.compile(r"^failures:\n((?:    \S+\n)+)", re.MULTILINE)
_LEFT_OUT = re.compile(r"^(?:-- )?left out: (.+)", re.MULTILINE)
_CRASH = re.compile(r"process didn't exit successfully: .*\(signal: |could not compile")


@dataclasses.dataclass(frozen=True)
class Failure:
    """A test that failed, what it said, and the command that runs it alone."""

    name: str
    output: str
    command: tuple[str, ...]


@dataclasses.dataclass
class Step:
    """What one step of the run has found."""

    name: str
    seconds: int
    # Of the processors, by the step and what it has waited for.
    worked: int
    status: int
    passed: int = 0
    skipped: Counter[str] = dataclasses.field(default_factory=Counter)
    failures: list[Failure] = dataclasses.field(default_factory=list)
    # What no second run can mend.
    broken: list[str] = dataclasses.field(default_factory=list)
    unstable: list[Failure] = dataclasses.field(default_factory=list)

    @property
    def tests(self) -> int:
        """Return how many of its tests ran."""
        return self.passed + len(self.failures)


def read(folder: Path) -> list[Step]:
    """Return the steps of a run, in the order of their ends."""
    steps = []
    for line in (folder / "steps").read_text().splitlines():
        name, *numbers = line.split("\t")
        step = Step(name, *map(int, numbers))
        log = (folder / f"{name}.log").read_text(errors="replace")
        _add_cargo(step, log)
        step.skipped.update(_LEFT_OUT.findall(log))
        if (reports := folder / f"{name}.jsonl").exists():
            with reports.open() as lines:
                _add_pytest(step, map(json.loads, lines))
        if step.status and not step.failures and not step.broken:
            step.broken.append(f"exit status {step.status}; see its output above")
        steps.append(step)
    return steps


def _add_cargo(step: Step, log: str) -> None:
    for passed, _, ignored in _RESULT.findall(log):
        step.passed += int(passed)
        step.skipped["ignored by cargo test"] += int(ignored)
    manifest = ("--manifest-path", "bench/load/Cargo.toml") if step.name == "load" else ()
    options = ("--target-dir", "target") if manifest else ("--no-default-features",)
    for names in _NAMES.findall(log):
        for name in names.split():
            said = re.search(rf"^---- {re.escape(name)} stdout ----\n(.*?)\n\n", log, re.M | re.S)
            command = ("cargo", "test", *manifest, *options, "--", "--exact", name)
            step.failures.append(Failure(name, said[1] if said else "", command))
    if crash := _CRASH.search(log):
        step.broken.append(crash[0])


def _add_pytest(step: Step, reports: Iterable[dict[str, Any]]) -> None:
    failed: dict[str, str] = {}
    status = None
    for report in reports:
        if report["$report_type"] == "SessionFinish":
            status = report["exitstatus"]
        # Where xdist adds the group of a test to its name, pytest by itself does not know it.
        test = re.sub(r"@[^@\]]+$", "", report.get("nodeid", ""))
        said = report.get("longrepr")
        if report.get("outcome") == "failed":
            if report["$report_type"] == "CollectReport":
                step.broken.append(f"{test} cannot be collected:\n{_text(said)}")
            elif isinstance(said, str) and said.startswith("[XPASS(strict)]"):
                step.broken.append(f"{test} is expected to fail and passed: {said}")
            else:
                failed[test] = "\n".join(
                    [failed.get(test, ""), _text(said), *map(": ".join, report["sections"])]
                )
        elif report.get("outcome") == "skipped" and report["$report_type"] == "TestReport":
            reason = report.get("wasxfail")
            step.skipped[f"expected to fail: {reason}" if reason else said[2]] += 1
        elif report.get("when") == "call":
            step.passed += 1
    if status not in (0, TESTS_FAILED):
        step.broken.append(f"pytest ended with {status}")
    python = ROOT / ".cache" / "versions" / step.name / "bin" / "python"
    if python.exists():
        command: tuple[str, ...] = (str(python),)
    elif python.is_symlink():
        # Of a Python in a root: tests/versions has run the step there.
        command = (".ci/root", "python", str(python.relative_to(ROOT)))
    else:
        command = (str(ROOT / ".venv" / "bin" / "python"),)
    command += ("-m", "pytest", "-rP")
    command += ("--every-server",) if os.environ.get("EVERY") else ()
    step.failures += [Failure(name, said, (*command, name)) for name, said in failed.items()]


def _text(said: object) -> str:
    if not isinstance(said, dict):
        return str(said)
    entries = [entry["data"] for entry in said["reprtraceback"]["reprentries"]]
    return "\n".join(line for entry in entries for line in entry.get("lines", ()))


def run_alone(command: tuple[str, ...]) -> tuple[bool, str]:
    """Run one test with nothing beside it; return whether it passed, and its output."""
    site = ROOT / "dist" / "site"
    env = {**os.environ, "SITE": str(site)} if site.exists() else None
    try:
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=600,
            check=False,
        )
    except subprocess.TimeoutExpired as late:
        return False, f"not done after {late.timeout:.0f} s"
    return done.returncode == 0, done.stdout.decode(errors="replace")


def validate(
    steps: list[Step],
    run: Callable[[tuple[str, ...]], tuple[bool, str]] = run_alone,
    say: Callable[[str], None] = print,
) -> bool:
    """Run what failed again, print the outcome, and return whether the change may be taken."""
    failed = sum(len(step.failures) for step in steps)
    if failed > RUN_AGAIN:
        say(f"{failed} tests failed, more than {RUN_AGAIN}: none of them is run again")
    else:
        for step in steps:
            for failure in list(step.failures):
                _run_again(step, failure, run, say)
    for step in steps:
        for problem in step.broken:
            say(f"== red: {step.name}: {problem}")
        for failure in step.failures:
            say(f"== red: {step.name}: {failure.name}")
    unstable = sum(len(step.unstable) for step in steps)
    if unstable > UNSTABLE:
        say(f"== red: {unstable} unstable tests, more than {UNSTABLE}")
    for line in table(steps):
        say(line)
    return unstable <= UNSTABLE and not any(step.broken or step.failures for step in steps)


def _run_again(
    step: Step,
    failure: Failure,
    run: Callable[[tuple[str, ...]], tuple[bool, str]],
    say: Callable[[str], None],
) -> None:
    passed, output = run(failure.command)
    say(f"\n== {'unstable' if passed else 'failed again'}: {failure.name}")
    say(f"-- at first:\n{failure.output}\n-- alone, by {' '.join(failure.command)}:\n{output}")
    if passed:
        step.failures.remove(failure)
        step.unstable.append(failure)
        step.passed += 1


def table(steps: list[Step]) -> Iterable[str]:
    """Give the lines of the table: each step, then what was left out and why, then the sum."""
    row = "{:<16} {:>6} {:>9} {:>7} {:>9} {:>9}  {}".format
    yield "\n" + row("step", "time", "processor", "tests", "failures", "unstable", "")
    for step in steps:
        times = (f"{time // 60}:{time % 60:02}" for time in (step.seconds, step.worked))
        end = "broken" if step.broken else ""
        counts = [step.tests, len(step.failures), len(step.unstable)]
        yield row(step.name, *times, *(f"{count:,}" for count in counts), end).rstrip()
    for step in steps:
        for reason, count in step.skipped.most_common():
            if count:
                yield f"left out in {step.name}: {count} x {reason}"
    for step in steps:
        for failure in step.unstable:
            yield f"unstable: {failure.name}"
    failed = sum(len(step.failures) + len(step.broken) for step in steps)
    skipped = sum(step.skipped.total() for step in steps)
    yield f"{sum(step.passed for step in steps)} passed, {failed} failed, {skipped} skipped"


if __name__ == "__main__":
    sys.exit(not validate(read(Path(sys.argv[1]))))
