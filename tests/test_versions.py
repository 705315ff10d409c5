"""The versions that README, `tests/versions` and pyproject name are the same."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()
SCRIPT = (ROOT / "tests" / "versions").read_text()
PYPROJECT = (ROOT / "pyproject.toml").read_text()

SETS = ("oldest", "django-5.2", "newest")


def table() -> dict[str, list[str]]:
    """Give README's table: the versions in the three sets, by library."""
    section = README.split("## Versions", 1)[1].split("\n## ", 1)[0]
    rows = re.findall(r"^\| (\w+) \| (.+) \| (.+) \| (.+) \|$", section, re.MULTILINE)
    return {library: values for library, *values in rows}


def requirements(name: str) -> dict[str, str]:
    """Give what the script installs for a set: exact versions, empty for the newest."""
    found = re.search(rf"run {re.escape(name)} ([^;]+)", SCRIPT)
    assert found is not None, f"tests/versions has no set {name}"
    python, *parts = found[1].replace("\\\n", " ").replace('"', "").split()
    known = {library: version for library, _, version in (part.partition("==") for part in parts)}
    return {"Python": python, **known}


@pytest.mark.parametrize("library", list(table()))
@pytest.mark.parametrize(("column", "name"), list(enumerate(SETS)))
def test_table_is_what_the_script_installs(library: str, column: int, name: str) -> None:
    """The versions in the table are those that the script installs."""
    installed = requirements(name)
    assert library in installed, f"{name} does not install {library}"
    pinned, promised = installed[library].removesuffix(".*"), table()[library][column]
    assert promised == pinned if pinned else promised.startswith("the newest")


def test_table_has_them_all() -> None:
    """At least those whose private parts are read."""
    assert {"Python", "Django", "asgiref", "gunicorn", "waitress", "gevent", "eventlet"} <= {
        *table()
    }


def test_package_asks_for_the_oldest() -> None:
    """The package's own requirements exclude older versions."""
    oldest = requirements("oldest")
    for library in ("Django", "asgiref"):
        assert f'"{library}>={oldest[library]}"' in PYPROJECT
    assert f'requires-python = ">={oldest["Python"]}"' in PYPROJECT
