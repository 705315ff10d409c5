"""The table of scenarios in docs/migration.md is compared with the results."""

from __future__ import annotations

import ast
import json
from typing import TYPE_CHECKING

import pytest

import comparison

if TYPE_CHECKING:
    from pathlib import Path

FOUND: comparison.Scenarios = {
    "a.py::test_one": {
        "does": "It waits.",
        "original": {"runserver": True, "gunicorn-gevent": False},
        "ours": {"runserver": True, "gunicorn-gevent": True, "uvicorn": True},
    },
    "a.py::test_two[x]": {
        "does": "It polls.",
        "original": {"runserver": True},
        "ours": {"runserver": True},
    },
    "a.py::test_two[y]": {
        "does": "It polls.",
        "original": {"runserver": True},
        "ours": {"runserver": False},
    },
    "b.py::test_three": {
        "does": "It sends.",
        "original": {"runserver": True},
        "ours": {"runserver": True},
    },
}


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The results of a run, and a page with a table of them."""
    monkeypatch.setattr(comparison, "PAGE", tmp_path / "migration.md")
    monkeypatch.setattr(comparison, "FOUND", tmp_path / "compared.json")
    comparison.FOUND.write_text(json.dumps(FOUND))
    comparison.PAGE.write_text(f"before\n{comparison.BEGIN}\n{comparison.END}\nafter\n")
    assert comparison.main([]) == 0
    return comparison.PAGE


def test_page_is_right() -> None:
    """The table in the repository is the one that the file in the repository gives."""
    assert comparison.main(["--check"]) == 0


def test_every_scenario_is_in_the_file() -> None:
    """Neither is a scenario without a result, nor a result without its scenario."""
    there = {
        f"{path.name}::{node.name}"
        for path in comparison.FOUND.parent.glob("test_*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }
    found = {name.partition("[")[0] for name in json.loads(comparison.FOUND.read_text())}
    assert found == there


def test_passes_as_with_the_original() -> None:
    """On each server, or the page says which line to change."""
    assert comparison.unexplained(json.loads(comparison.FOUND.read_text())) == []


def test_a_test_that_fails_is_not_noted(tmp_path: Path) -> None:
    """The run itself tells of it, and whether it was unstable: the page is right until then."""
    path = tmp_path / "compared.json"
    path.write_text(json.dumps(FOUND))
    writer = comparison.ComparisonWriter(path)
    name = next(iter(FOUND))
    scenario = {"name": name, "does": FOUND[name]["does"], "kind": next(iter(FOUND[name]["ours"]))}
    for outcome in ("failed", "passed"):
        report = pytest.TestReport(
            name,
            ("", 0, ""),
            {},
            outcome,  # type: ignore[arg-type]
            None,
            "call",
            user_properties=[("scenario", {**scenario, "kind": f"of-{outcome}"})],
        )
        writer.pytest_runtest_logreport(report)
    writer.pytest_sessionfinish()
    noted = json.loads(path.read_text())[name]["ours"]
    assert noted == {**FOUND[name]["ours"], "of-passed": True}


def test_written_table(page: Path) -> None:
    """
    Variants share a row, servers that fail are named, scenarios that pass with both are counted,
    and the rest of the page stays.
    """
    assert page.read_text() == (
        f"before\n{comparison.BEGIN}\n"
        "| what a project does | original | now |\n"
        "| --- | --- | --- |\n"
        "| It waits. | not on gunicorn-gevent | yes |\n"
        "| It polls. | yes | no |\n"
        "\nWith both pass 1 of 3.\n"
        f"{comparison.END}\nafter\n"
    )
    assert comparison.main(["--check"]) == 0


def test_wrong_row_is_named(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With the row that it should be, and how to write the table anew."""
    page.write_text(page.read_text().replace("| yes | no |", "| yes | yes |"))
    assert comparison.main(["--check"]) == 1
    assert capsys.readouterr().err.splitlines() == [
        "migration.md: missing: | It polls. | yes | no |",
        "migration.md: wrong: | It polls. | yes | yes |",
        "To write it anew: python tests/comparison.py",
    ]


def test_unexplained_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scenarios that pass with the original only, until the line to change is known."""
    assert comparison.unexplained(FOUND) == ["a.py::test_two[y] on runserver"]
    monkeypatch.setattr(comparison, "CHANGES", {"a.py::test_two": "write `wait()`"})
    assert comparison.unexplained(FOUND) == []
    assert comparison.rows(FOUND)[1] == ["It polls.", "yes", "no: write `wait()`"]
