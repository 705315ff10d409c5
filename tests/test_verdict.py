"""A run of .ci/run is validated: tests that fail are run again, alone, before they decide."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from types import ModuleType

ROOT = Path(__file__).resolve().parent.parent


def load() -> ModuleType:
    """The script, which is in no package."""
    spec = importlib.util.spec_from_file_location("verdict", ROOT / ".ci" / "verdict.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Where dataclasses look for the names in its annotations.
    sys.modules["verdict"] = module
    spec.loader.exec_module(module)
    return module


verdict = load()


def report(name: str, outcome: str = "passed", **values: object) -> dict[str, object]:
    """What pytest-reportlog writes of a test."""
    kind = {"$report_type": "TestReport", "when": "call", "sections": [], "longrepr": None}
    return {**kind, "nodeid": f"tests/test_a.py::{name}", "outcome": outcome, **values}


def failing(*names: str) -> list[dict[str, object]]:
    """Reports of tests that fail."""
    return [report(name, "failed", longrepr=f"{name} is wrong") for name in names]


class Run:
    """A run with one step that has tests, and what its tests do alone."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        # Names of tests that pass when they run again.
        self.passing: set[str] = set()
        self.again: list[str] = []
        self.said: list[str] = []

    def step(
        self,
        *reports: dict[str, object],
        name: str = "basic",
        status: int | None = None,
        log: str = "",
        end: int | None = None,
    ) -> None:
        """Add a step; without `status` it is that of its tests."""
        failed = int(any(each["outcome"] == "failed" for each in reports))
        status = failed if status is None else status
        with (self.folder / "steps").open("a") as steps:
            steps.write(f"{name}\t75\t130\t{status}\n")
        (self.folder / f"{name}.log").write_text(log)
        if reports:
            finish = {"$report_type": "SessionFinish", "exitstatus": failed if end is None else end}
            lines = "\n".join(map(json.dumps, [*reports, finish]))
            (self.folder / f"{name}.jsonl").write_text(lines)

    def is_green(self) -> bool:
        """Judge it."""

        def alone(command: tuple[str, ...]) -> tuple[bool, str]:
            self.again.append(command[-1])
            name = command[-1].rpartition("::")[2]
            return name in self.passing, f"what {name} says alone"

        return verdict.validate(verdict.read(self.folder), alone, self.said.append)

    @property
    def text(self) -> str:
        """What was printed."""
        return "\n".join(self.said)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A run without steps."""
    return Run(tmp_path)


def test_tests_of_a_root_run_again_in_it(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where their Python is not on this machine, its link in the environment leads nowhere."""
    monkeypatch.setattr(verdict, "ROOT", run.folder)
    python = run.folder / ".cache" / "versions" / "python-3.15" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.symlink_to("/nowhere/python3.15")
    run.step(*failing("test_x"), name="python-3.15")
    (step,) = verdict.read(run.folder)
    inside = (".ci/root", "python", ".cache/versions/python-3.15/bin/python", "-m")
    assert step.failures[0].command[:4] == inside


def test_steps_that_pass_are_green_and_counted(run: Run) -> None:
    """The table has a line for each step, and one for each reason to leave a test out."""
    run.step(report("test_x"), report("test_y", "skipped", longrepr=["f", 1, "Skipped: no Redis"]))
    run.step(report("test_z", "skipped", wasxfail="it cannot"), name="extended")
    run.step(name="lint")
    assert run.is_green()
    assert run.again == []
    assert [line.split() for line in run.said[-6:-3]] == [
        ["basic", "1:15", "2:10", "1", "0", "0"],
        ["extended", "1:15", "2:10", "0", "0", "0"],
        ["lint", "1:15", "2:10", "0", "0", "0"],
    ]
    assert run.said[-3:] == [
        "left out in basic: 1 x Skipped: no Redis",
        "left out in extended: 1 x expected to fail: it cannot",
        "1 passed, 0 failed, 2 skipped",
    ]


def test_that_passes_alone_is_unstable(run: Run) -> None:
    """It is printed with both outputs; the run is green."""
    run.step(report("test_x"), *failing("test_y"))
    run.passing = {"test_y"}
    assert run.is_green()
    assert run.again == ["tests/test_a.py::test_y"]
    assert "== unstable: tests/test_a.py::test_y" in run.text
    assert "test_y is wrong" in run.text
    assert "what test_y says alone" in run.text
    assert run.said[-1] == "2 passed, 0 failed, 0 skipped"


def test_that_fails_again_is_red(run: Run) -> None:
    """Once unstable and once broken."""
    run.step(*failing("test_x", "test_y"))
    run.passing = {"test_y"}
    assert not run.is_green()
    assert "== red: basic: tests/test_a.py::test_x" in run.said


@pytest.mark.parametrize(("unstable", "green"), [(3, True), (4, False)])
def test_fourth_unstable_test_is_red(run: Run, unstable: int, *, green: bool) -> None:
    """They count together, in whichever step they are."""
    run.passing = {f"test_{n}" for n in range(unstable)}
    for n in range(unstable):
        run.step(*failing(f"test_{n}"), name=f"step-{n}")
    assert run.is_green() is green


@pytest.mark.parametrize(("count", "again"), [(15, 15), (16, 0)])
def test_many_failures_are_red_at_once(run: Run, count: int, again: int) -> None:
    """A change that is broken is not run again."""
    run.step(*failing(*(f"test_{n}" for n in range(count))))
    assert not run.is_green()
    assert len(run.again) == again


def test_failure_of_a_fixture_is_the_test_s(run: Run) -> None:
    """A test that passed and whose cleaning up failed has failed once, under its own name."""
    run.step(report("test_x"), *failing("test_x"))
    assert not run.is_green()
    assert run.again == ["tests/test_a.py::test_x"]


@pytest.mark.parametrize(
    ("nodeid", "alone"),
    [
        ("test_x[a@b.c]@server gunicorn-sync", "test_x[a@b.c]"),
        ("test_x@groups postgres", "test_x"),
        ("test_x[user@example.org]", "test_x[user@example.org]"),
    ],
)
def test_group_of_xdist_is_no_part_of_the_name(run: Run, nodeid: str, alone: str) -> None:
    """pytest alone would not find the test."""
    run.step(*failing(nodeid))
    run.is_green()
    assert run.again == [f"tests/test_a.py::{alone}"]


UNEXPECTED = {
    "expected failure that passes": {"reports": failing("x"), "text": "[XPASS(strict)] cannot"},
    "file that cannot be imported": {"kind": "CollectReport"},
    "pytest that was interrupted": {"end": 2},
    "pytest that ended without a word": {"end": 3},
}


@pytest.mark.parametrize("case", UNEXPECTED.values(), ids=UNEXPECTED)
def test_what_no_second_run_can_mend_is_red(run: Run, case: dict[str, object]) -> None:
    """Although each of its tests would pass alone."""
    (reported,) = failing("test_x")
    reported["$report_type"] = case.get("kind", "TestReport")
    reported["longrepr"] = case.get("text", "wrong")
    run.step(reported, end=case.get("end"))  # type: ignore[arg-type]
    run.passing = {"test_x"}
    assert not run.is_green()


def test_step_that_fails_without_a_failing_test_is_red(run: Run) -> None:
    """A lint, a package that does not build, a compiler that stops."""
    run.step(report("test_x"), status=2)
    assert not run.is_green()
    assert "== red: basic: exit status 2; see its output above" in run.said


CARGO = """
running 2 tests
.F
failures:

---- engine::inbox::keeps_order stdout ----
assertion failed: it is out of order

failures:
    engine::inbox::keeps_order

test result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out
"""


def test_engine_s_tests_are_run_again_too(run: Run) -> None:
    """Their names are in the output of cargo test."""
    run.step(report("test_x"), status=2, log=CARGO)
    run.passing = {"keeps_order"}
    assert run.is_green()
    assert run.again == ["engine::inbox::keeps_order"]
    assert "it is out of order" in run.text
    assert run.said[-1] == "3 passed, 0 failed, 0 skipped"


def test_engine_that_crashes_is_red(run: Run) -> None:
    """The tests behind a crash did not run at all."""
    crash = "process didn't exit successfully: `engine` (signal: 11, SIGSEGV)\n"
    run.step(report("test_x"), status=2, log=CARGO + crash)
    run.passing = {"keeps_order"}
    assert not run.is_green()


@pytest.mark.parametrize(("code", "passed"), [("pass", True), ("raise SystemExit(3)", False)])
def test_runs_a_command_alone(code: str, *, passed: bool) -> None:
    """Its exit status decides; its output is kept."""
    command = (sys.executable, "-c", f"print('here'); {code}")
    assert verdict.run_alone(command) == (passed, "here\n")


def test_command_that_does_not_end_has_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test that hangs is no pass."""

    def hang(command: tuple[str, ...], *, timeout: float, **_: object) -> None:
        raise verdict.subprocess.TimeoutExpired(command, timeout)

    monkeypatch.setattr(verdict.subprocess, "run", hang)
    assert verdict.run_alone(("x",)) == (False, "not done after 600 s")
