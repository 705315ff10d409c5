"""The versions that docs/versions.md, `tests/versions` and pyproject name are the same."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "versions.md").read_text()
SCRIPT = (ROOT / "tests" / "versions").read_text()
PYPROJECT = (ROOT / "pyproject.toml").read_text()

SETS = ("oldest", "between", "newest")


def table() -> dict[str, list[str]]:
    """Give the page's table: the versions in the three sets, by library."""
    section = PAGE.split("## Tested versions", 1)[1].split("\n## ", 1)[0]
    rows = re.findall(r"^\| (\w+) \| (.+) \| (.+) \| (.+) \|$", section, re.MULTILINE)
    return {library: values for library, *values in rows}


def requirements(name: str) -> dict[str, str]:
    """Give what the script installs for a set: exact versions, empty for the newest."""
    found = re.search(rf"run {re.escape(name)} ([^;]+)", SCRIPT)
    assert found is not None, f"tests/versions has no set {name}"
    python, _, *parts = found[1].replace("\\\n", " ").replace('"', "").split()
    known = {library: version for library, _, version in (part.partition("==") for part in parts)}
    return {"Python": python, **known}


@pytest.mark.parametrize("library", list(table()))
@pytest.mark.parametrize(("column", "name"), list(enumerate(SETS)))
def test_table_is_what_the_script_installs(library: str, column: int, name: str) -> None:
    """The versions in the table are those that the script installs."""
    installed, promised = requirements(name), table()[library][column]
    if promised == "\N{EN DASH}":
        assert library not in installed, f"{name} installs {library}"
        return
    assert library in installed, f"{name} does not install {library}"
    pinned = installed[library].removesuffix(".*")
    assert promised == pinned if pinned else promised.startswith("the newest")


def test_table_has_them_all() -> None:
    """All that a set installs; one that is in a single set only is a detail of that one."""
    installed = [library for name in SETS for library in requirements(name)]
    assert {library for library in installed if installed.count(library) > 1} <= {*table()}


def test_package_asks_for_the_oldest() -> None:
    """The package's own requirements exclude older versions."""
    oldest = requirements("oldest")
    for library in ("Django", "asgiref"):
        assert f'"{library}>={oldest[library]}"' in PYPROJECT
    assert f'requires-python = ">={oldest["Python"]}"' in PYPROJECT


def test_classifiers_are_tested_versions() -> None:
    """What PyPI shows is what the page says."""
    tested = PAGE.split("## Tested versions", 1)[1]
    named = re.findall(r'"(?:Framework :: Django|Programming .* Python) :: (\d+\.\d+)"', PYPROJECT)
    assert len(named) > 8
    assert [version for version in named if not re.search(rf"\b{version}\b", tested)] == []
